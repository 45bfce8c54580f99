"""Write the plain script of a model: what goes with a task's words, and what arms start from."""

from __future__ import annotations

from diffopt.bench.suite.families import SAMPLERS, Family, clips

SCRIPT = '''"""{title} by {model}: load() builds the pipeline, generate() makes the images of one call."""

{imports}

MODEL = "{model}"


def load(model=MODEL, device="cpu", engines="engines"):
    """Return the pipeline on a device; whatever is prepared once is prepared here."""
{parts}    pipe = {pipeline_class}.from_pretrained(model, {given}dtype=torch.{dtype})
{scheduler}    return pipe.to(device)

{helpers}
def generate(pipe, {takes}):
    """Return the images of one call, float [n, height, width, 3] in 0 to 1."""
    return pipe(
        {conditions},
        num_inference_steps={steps},
        guidance_scale={guidance},
{size}        generator=generator,
        output_type="np",
    ).images


if __name__ == "__main__":
    made = generate(load(), {example})
    print(made.shape)
'''

CONTROL = """    controlnet = ControlNetModel.from_pretrained(model, subfolder="controlnet", dtype=torch.{dtype})
"""

CANNY = '''
def edges(image):
    """Return the Canny edges of a picture, or of each of several, as the ControlNet wants them."""
    if isinstance(image, list):
        return [edges(one) for one in image]
    return Image.fromarray(as_condition(canny(np.asarray(image)[None]))[0])

'''


def plain_script(family: Family, *, sampler: str, steps: int, dtype: str = "float32") -> str:
    """Return a complete inference script with no method in it.

    Args:
        sampler: a name of `SAMPLERS`, or empty for the model's own.
    """
    control, classes = family.key == "controlnet", family.key == "dit"
    scheduler = SAMPLERS.get(sampler, "")
    names = sorted(filter(None, (scheduler, family.pipeline_class, "ControlNetModel" if control else "")))
    imports = f"import torch\nfrom diffusers import {', '.join(names)}"
    if control:
        imports = f"import numpy as np\n{imports}\nfrom PIL import Image\n\nfrom diffopt.backends.canny import as_condition, canny"
    conditions = "prompt"
    if control:
        conditions = "prompt,\n        image=edges(image)"
    if classes:
        conditions = "class_labels=pipe.get_label_ids([prompt] if isinstance(prompt, str) else prompt)"
    size = "" if classes else f"        height={family.size},\n        width={family.size},\n"
    if family.key.startswith("pixart"):
        size += "        use_resolution_binning=False,\n"
    example = '"a red circle", torch.Generator().manual_seed(0)'
    return SCRIPT.format(
        title=family.title,
        model=family.model,
        imports=imports,
        pipeline_class=family.pipeline_class,
        given="controlnet=controlnet, " if control else "",
        dtype=dtype,
        parts=CONTROL.format(dtype=dtype) if control else "",
        scheduler=f"    pipe.scheduler = {scheduler}.from_config({_configuration(family, sampler)})\n"
        if scheduler
        else "",
        helpers=CANNY if control else "",
        takes="prompt, generator, image" if control else "prompt, generator",
        conditions=conditions,
        steps=steps,
        guidance=family.guidance,
        size=size,
        example=f'{example}, Image.open("condition.png")' if control else example,
    )


def _configuration(family: Family, sampler: str) -> str:
    """Return what a scheduler is made of: DDIM clips samples unless it is told not to, which latents do not bear."""
    return f"pipe.scheduler.config{', clip_sample=False' if clips(family, sampler) else ''}"
