"""The page: its controls, and what they start."""
import contextvars
import html
import itertools
import textwrap
from typing import Any

from video_diffusion.diffusion import samplers
from video_diffusion.errors import UserError
from video_diffusion.web import forms
from video_diffusion.web import work

TITLE = 'Video diffusion'
WAITING = 8  # visitors in the queue; the next one is asked to come later
EXAMPLES = 4
# Results are shown for this long at least, in seconds; then they may go.
KEPT_SECONDS = 7200
CSS = """
.gradio-container {max-width: 1080px !important; margin: 0 auto !important}
#result video {image-rendering: pixelated; background: #000}
#message p {margin: 0; padding: .7em 1em; border-radius: 8px}
#message p.error {background: #fdecea; color: #8a1c12}
#message p.note {background: #e9f2fd; color: #17406d}
"""
_TASKS = [
    ('New video', forms.NOISE),
    ('Extend a clip', forms.EXTEND),
    ('Interpolate', forms.INTERPOLATE),
]
_SAMPLERS = {
    'ancestral': 'ancestral, as in the paper',
    'ddim': 'DDIM, few steps',
    'dpmpp_2m': 'DPM-Solver++ (2M), fewest steps',
    'annealed_langevin': 'annealed Langevin dynamics, many steps',
}


def looks() -> dict[str, Any]:
  """The arguments of `server.serving` that say how the page looks."""
  import gradio as gr

  system = ('ui-sans-serif', 'system-ui', 'sans-serif')
  return {
      'theme': gr.themes.Default(
          primary_hue='blue', font=system,
          font_mono=('ui-monospace', 'monospace'),
      ).set(block_info_text_color='*neutral_600'),  # or it is hardly seen
      'css': CSS,
  }


def make(worker: work.Worker, name: str):
  """The page of a model, as gradio's Blocks.

  Args:
    worker: samples.
    name: of the run, to show.
  """
  import gradio as gr

  model, limits = worker.model, worker.limits
  with gr.Blocks(
      title=TITLE, analytics_enabled=False, delete_cache=(600, KEPT_SECONDS),
  ) as page:
    gr.HTML(_heading(model, name))
    with gr.Row():
      with gr.Column():
        controls = _controls(gr, model, limits)
      with gr.Column():
        video = gr.Video(
            label='Result', autoplay=True, loop=True, interactive=False,
            buttons=['download'], elem_id='result', height=400,
        )
        message = gr.HTML(
            _note('Press "Make the video". It plays here in a loop.'),
            elem_id='message',
        )
    names, components = zip(*controls.items(), strict=True)
    buttons = [components[names.index(name)] for name in ('make', 'stop')]
    fields = [
        (name, component) for name, component in controls.items()
        if component not in buttons
    ]

    def run(request: gr.Request, *values, progress=gr.Progress()):  # noqa: B008
      form = _form(dict(zip([n for n, _ in fields], values, strict=True)))
      # gradio knows the visitor by the context; steps come from other threads.
      context = contextvars.copy_context()
      progress(0, desc='Preparing (once for these settings)')
      try:
        path = worker.run(
            request.session_hash, form, lambda done, total: context.copy().run(
                progress, (done, total), desc='Removing noise', unit='steps'
            ),
        )
      except UserError as error:
        return None, _error(str(error))
      except work.Stopped:
        return None, _note('Stopped.')
      return str(path), _note(
          'Done. The arrow above the video saves it. Another seed gives '
          'another video.'
      )

    def stop(request: gr.Request):
      worker.stop(request.session_hash)
      return _note('Stopped.')

    def leave(request: gr.Request):
      worker.stop(request.session_hash)

    started = [buttons[0].click]
    if 'prompt' in controls:
      started.append(controls['prompt'].submit)
    making = gr.on(
        started, lambda: _note('The model is at work. "Stop" ends it.'), None,
        message, queue=False, show_progress='hidden', trigger_mode='once',
        api_visibility='private',
    ).then(
        run, [component for _, component in fields], [video, message],
        concurrency_limit=1, concurrency_id='model', show_progress='full',
        show_progress_on=[video], trigger_mode='once', api_visibility='private',
    )
    buttons[1].click(
        stop, None, message, cancels=[making], queue=False,
        api_visibility='private',
    )
    page.unload(leave)
  page.queue(max_size=WAITING, default_concurrency_limit=1)
  return page


def _heading(model, name):
  height, width = model.size
  what = {
      'text': 'Describe a video, and the model makes it out of noise.',
      'labels': 'Choose labels, and the model makes a video of them.',
      '': 'The model makes videos out of noise.',
  }[model.conditioner.takes]
  return (
      f'<h1>{TITLE}</h1><p>{what} Nothing leaves this computer.</p>'
      f'<p>Model: <b>{html.escape(name)}</b>, which has seen clips of '
      f'{model.frames} frames of {width} x {height} pixels in {model.step} '
      'training steps.</p>'
  )


def _controls(gr, model, limits) -> dict[str, Any]:
  """Field of a form -> its control; and the buttons 'make' and 'stop'."""
  title, options = forms.TITLES, model.config.sample
  kind = model.conditioner.takes
  # Bounds of gradio's own would be shown as errors of another kind.
  whole = lambda name, value, info, **more: gr.Number(
      value, label=title[name], info=info, elem_id=name, **more
  )
  made = {}
  if kind == 'text':
    examples = _captions(model)
    made['prompt'] = gr.Textbox(
        label=title['prompts'], lines=2, max_lines=4, autofocus=True,
        placeholder=examples[0] if examples else '', elem_id='prompt',
        info='What the video shall show.', submit_btn=False,
    )
    if examples:
      gr.Examples(examples, made['prompt'], cache_examples=False)
  for i, size in enumerate(model.conditioner.label_sizes):
    made[f'label_{i}'] = gr.Number(
        0, label=f'Label {i + 1}', elem_id=f'label_{i}',
        info=f'From 0 to {size - 1}; -1 leaves it open.',
    )
  made['task'] = gr.Radio(
      _TASKS, value=forms.NOISE, label='Task', elem_id='task',
      info='You can also give a clip of your own: Extend adds frames behind '
      'it, Interpolate puts new frames between its frames.',
  )
  made['clip'] = gr.File(
      label=f'{title["video"]}: a video of at most '
      f'{limits.upload.seconds:.0f} s and {limits.upload_bytes >> 20} MiB',
      height=130, visible=False, elem_id='clip',
  )
  _refuse_addresses(gr, made['clip'])
  made['every_frame'] = gr.Checkbox(
      False, label='Take every frame of the clip', visible=False,
      info='Otherwise frames are taken as far apart as in the training clips.',
      elem_id='every_frame',
  )
  with gr.Row():
    made['make'] = gr.Button(
        'Make the video', variant='primary', elem_id='make'
    )
    made['stop'] = gr.Button('Stop', elem_id='stop')
  with gr.Row():
    made['frames'] = whole(
        'frames', model.frames,
        f'Length of the video. {options.fps:g} are shown in a second.',
    )
    made['new_frames'] = whole(
        'new_frames', max(1, model.frames - model.overlap()),
        'How many are added to the clip.', visible=False,
    )
    made['factor'] = whole(
        'factor', 2, 'How many times as many frames there will be.',
        visible=False,
    )
    made['seed'] = whole(
        'seed', options.seed, 'Another number gives another video.'
    )
  with gr.Accordion('More settings', open=False):
    if kind:
      largest = model.config.distill.max_guidance_weight
      made['guidance_weight'] = gr.Number(
          options.guidance_weight, label=title['guidance_weight'],
          info='0 is without guidance. A larger weight follows the '
          f'{"prompt" if kind == "text" else "labels"} more closely, and the '
          'videos differ less.' + (f' At most {largest:g}.' if largest else ''),
          elem_id='guidance_weight',
      )
    made['sampler'] = gr.Dropdown(
        [(_SAMPLERS.get(name, name), name) for name in samplers.SAMPLERS],
        value=options.sampler, label=title['sampler'], elem_id='sampler',
        info='The method that removes the noise.',
    )
    made['steps'] = whole(
        'num_steps', options.num_steps,
        f'More steps take longer and give finer videos. At most {limits.steps}.'
    )
  shown = {
      'clip': (forms.EXTEND, forms.INTERPOLATE),
      'every_frame': (forms.EXTEND, forms.INTERPOLATE),
      'frames': (forms.NOISE,),
      'new_frames': (forms.EXTEND,),
      'factor': (forms.INTERPOLATE,),
  }
  made['task'].change(
      lambda task: [gr.update(visible=task in on) for on in shown.values()],
      made['task'], [made[name] for name in shown], queue=False,
      show_progress='hidden', api_visibility='private',
  )
  return made


def _refuse_addresses(gr, component):
  """Has a control take no address in the place of a file, to be fetched."""
  move = component.async_move_resource_to_block_cache

  async def move_file(path):
    if '://' in str(path):
      raise gr.Error('A clip must be uploaded.', print_exception=False)
    return await move(path)

  component.async_move_resource_to_block_cache = move_file


def _captions(model) -> list[str]:
  """Some captions of held-out clips; none where the data are not at hand."""
  try:
    examples = model.conditioner.heldout(4 * EXAMPLES)
    captions = [str(example['caption']) for example in examples]
  except (UserError, OSError):
    return []
  captions = [
      textwrap.shorten(caption, 200)
      for caption in sorted(set(captions), key=lambda c: (len(c), c))
  ]
  return captions[:: max(1, len(captions) // EXAMPLES)][:EXAMPLES]


def _form(values: dict[str, Any]) -> forms.Form:
  """The form of the values of the controls."""
  labels = []
  for i in itertools.count():
    if f'label_{i}' not in values:
      return forms.Form(**values, labels=labels)
    labels.append(values.pop(f'label_{i}'))


def _note(text):
  return f'<p class="note" role="status">{html.escape(text)}</p>'


def _error(text):
  text = text[:1].upper() + text[1:]
  return f'<p class="error" role="alert">{html.escape(text)}</p>'
