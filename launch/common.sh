# shellcheck shell=bash
# What tpu_vm.sh, slurm.sh and xpk.sh share: flags, and commands that a dry run
# prints instead. Sourced.
set -euo pipefail
if ((BASH_VERSINFO[0] * 100 + BASH_VERSINFO[1] < 404)); then
  echo "${0##*/}: needs bash 4.4 or newer; this is $BASH_VERSION." >&2
  exit 2
fi

say() { echo "${0##*/}: $*" >&2; }
die() { say "$@"; exit 1; }
# Of the flags; every other failure is a 1 or what the failing command gave.
usage() { say "$@"; exit 2; }

# Fills `verb`, `flag` (declared by the caller, with all its defaults) and
# `extra`, what follows `--`. A flag whose default is true or false needs no
# value. The first argument lists the verbs.
parse() {
  local verbs=" $1 " key value
  shift
  verb=${1:-}
  [[ -n $verb && $verbs == *" $verb "* ]] ||
    usage "the first argument is '$verb'; it must be one of:${verbs% }."
  shift
  while (($#)); do
    [[ $1 != -- ]] || { shift; break; }
    [[ $1 == --* ]] ||
      usage "unknown argument '$1'; flags of training go after --."
    key=${1#--} key=${key%%=*} value=${1#*=}
    [[ $key =~ ^[a-z_]+$ && -v flag[$key] ]] ||
      usage "there is no flag --$key; there are: $(flag_names)."
    if [[ ${flag[$key]} =~ ^(true|false)$ ]]; then
      [[ $1 == *=* ]] || value=true
      [[ $value =~ ^(true|false)$ ]] ||
        usage "--$key is '$value'; it must be true or false."
    else
      [[ $1 == *=* ]] || usage "--$key needs a value: --$key=VALUE."
    fi
    # shellcheck disable=SC2004  # the keys are words
    flag[$key]=$value
    shift
  done
  # shellcheck disable=SC2034  # read by the caller
  extra=("$@")
}

flag_names() { printf '%s\n' "${!flag[@]}" | sort | paste -sd ' '; }

# need_match FLAG PATTERN WHAT: the flag's value matches the whole pattern.
need_match() {
  [[ ${flag[$1]} =~ ^($2)$ ]] ||
    usage "--$1 is '${flag[$1]}'; it must be $3."
}

need_name() {
  need_match name '[a-z]([a-z0-9-]{0,38}[a-z0-9])?' \
    'at most 40 lower-case letters, digits and dashes, a letter first'
}

need_number() {
  local key
  for key; do need_match "$key" '[1-9][0-9]*' 'a positive integer'; done
}

# split_flag FLAG: `words` (declared by the caller) becomes the words of the
# flag's value, as a shell would split it: quotes and backslashes hold words
# together.
# Nothing is expanded and nothing is run. Bash has no such command but `eval`,
# and a login node need not have Python.
split_flag() {
  local text=${flag[$1]} word='' begun=false quote='' char next i
  words=()
  for ((i = 0; i < ${#text}; ++i)); do
    char=${text:i:1} next=${text:i+1:1}
    if [[ -n $quote && $char == "$quote" ]]; then
      quote=''
    elif [[ $char == "\\" && (-z $quote ||
      $quote == '"' && $next == [\"\\\$\`]) ]]; then
      word+=$next begun=true i=$((i + 1))
    elif [[ -n $quote ]]; then
      word+=$char
    elif [[ $char == [\'\"] ]]; then
      quote=$char begun=true
    elif [[ $char == [[:space:]] ]]; then
      ! $begun || words+=("$word")
      word='' begun=false
    else
      word+=$char begun=true
    fi
  done
  [[ -z $quote ]] || usage "--$1 is '$text'; its quote $quote is not closed."
  ! $begun || words+=("$word")
}

# expand_home FLAG...: ~ and ~/ become this user's home folder, as a shell does
# it for ~/x but not for --flag=~/x.
expand_home() {
  local key
  for key; do
    [[ ${flag[$key]} == '~'* ]] || continue
    need_match "$key" '~(/.*)?' 'a path; of homes only your own is known, ~/'
    [[ -n ${HOME:-} ]] ||
      usage "--$key is '${flag[$key]}', but HOME is not set."
    # shellcheck disable=SC2004  # the keys are words
    flag[$key]=$HOME${flag[$key]:1}
  done
}

# The same directory must be seen by all processes and outlive the machines.
need_workdir() {
  need_match workdir '(/|[a-z0-9]+://).+' \
    'a directory that every worker sees: gs://BUCKET/RUN or /SHARED/RUN'
}

# The arguments as one line that a shell would split into them again.
quoted() {
  local word line=''
  for word; do
    [[ $word =~ ^[A-Za-z0-9_./:=@%+,-]+$ ]] || word=${word@Q}
    line+=" $word"
  done
  echo "${line# }"
}

# Runs a command after showing it; a dry run prints it and no more.
run() {
  if ${flag[dry_run]}; then
    quoted "$@"
  else
    echo "+ $(quoted "$@")" >&2
    "$@"
  fi
}

# ask VARIABLE DRY COMMAND...: the variable becomes the command's output, in a
# dry run DRY.
ask() {
  local ask_variable=$1 ask_answer=$2
  shift 2
  if ${flag[dry_run]}; then
    echo "$ask_variable=\$($(quoted "$@"))"
  else
    ask_answer=$("$@") || return
  fi
  printf -v "$ask_variable" %s "$ask_answer"
}

# archive_head ROOT makes $TMP, which goes when the script ends, and in it an
# archive of HEAD: what is not committed does not travel, nor do data and runs.
archive_head() {
  ask TMP TMP mktemp -d || return
  # shellcheck disable=SC2064  # the directory of now
  ${flag[dry_run]} || trap "rm -rf -- ${TMP@Q}" EXIT
  run git -C "$1" archive --format=tar.gz "--output=$TMP/source.tar.gz" HEAD
}
