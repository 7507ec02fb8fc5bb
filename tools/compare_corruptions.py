"""Corruptions beside the published script: `compare_corruptions.py SCRIPT [--images N]`.

SCRIPT is ImageNet-C/create_c/make_cifar_c.py of the repository hendrycks/robustness, whose functions are taken from
it without running the rest; they need scikit-image and opencv-python-headless, and for motion blur and snow also wand
with ImageMagick. Names that current versions of numpy and scikit-image have dropped are put back. Kinds without
random numbers are compared value by value, in grey levels of 255; of the others what can be compared is how far they
move an image, the root of the mean square of the change. `frost` needs photographs and is left out, as is what cannot
be loaded. The time is that of the process, of ours in one batch and of the script's loop over the images. The result
is kept in a file that the page nbs/benchmarks/10_adaptation.ipynb shows.
"""
import argparse, ast, json, time
from io import BytesIO
from pathlib import Path
import numpy as np
import torch
from PIL import Image
from robustnb.corruptions import EXTRA, KINDS, corrupt
from robustnb.data import as_float, load

FIXED = ('defocus_blur', 'zoom_blur', 'brightness', 'contrast', 'pixelate', 'jpeg_compression', 'gaussian_blur',
         'saturate')

def motion_names():
    "Names that motion blur and snow need; none without ImageMagick"
    try:
        from wand.api import library
        from wand.image import Image as WandImage
    except ImportError: return {}
    return dict(wandlibrary=library, WandImage=WandImage)

def script_functions(path):
    "name -> function, of the functions and classes that the script defines"
    import cv2, ctypes, skimage, skimage.color, skimage.util
    from scipy.ndimage import map_coordinates, zoom
    from skimage.filters import gaussian
    np.float_, np.fromstring = np.float64, np.frombuffer
    def blurred(image, sigma, multichannel=False, **kw):
        return gaussian(image, sigma, channel_axis=-1 if multichannel else None, **kw)
    wand = motion_names()
    names = dict(np=np, cv2=cv2, sk=skimage, gaussian=blurred, scizoom=zoom, map_coordinates=map_coordinates,
                 BytesIO=BytesIO, PILImage=Image, Image=Image, ctypes=ctypes) | wand
    if wand: wand['wandlibrary'].MagickMotionBlurImage.argtypes = (ctypes.c_void_p, *[ctypes.c_double]*3)
    wanted = (ast.FunctionDef, ast.ClassDef) if wand else ast.FunctionDef
    tree = ast.parse(Path(path).read_text())
    tree.body = [node for node in tree.body if isinstance(node, wanted)]
    exec(compile(tree, str(path), 'exec'), names)
    return names

def theirs(f, images, severity):
    "The script's images (N,3,32,32) in grey levels, cut to 8 bits as the script does"
    out = [np.uint8(f(Image.fromarray(i), severity)) for i in images]
    return torch.from_numpy(np.stack(out)).movedim(3, 1).float()

def clocked(f):
    "(what `f()` gives, seconds of the process)"
    start = time.process_time()
    return f(), time.process_time() - start

def compared(functions, x, kind, severity):
    "How far ours and the script move the images, for kinds without random numbers how far they are apart, and seconds"
    images, clean = x.movedim(1, 3).contiguous().numpy(), x.float()
    corrupt(x[:2], kind, severity)  # matrices are made once
    ours, fast = clocked(lambda: (corrupt(as_float(x), kind, severity)*255).floor())
    other, slow = clocked(lambda: theirs(functions[kind], images, severity))
    moved = [(v - clean).square().mean().sqrt().item() for v in (ours, other)]
    off = (ours - other).abs() if kind in FIXED else None
    return dict(kind=kind, severity=severity, ours=moved[0], script=moved[1],
                apart=None if off is None else off.mean().item(), most=None if off is None else int(off.max()),
                seconds_ours=fast, seconds_script=slow)

def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('script', type=Path)
    parser.add_argument('--images', type=int, default=500, help='test images of CIFAR-10')
    parser.add_argument('--out', type=Path, default=Path(__file__).parent.parent/'nbs'/'benchmarks'/'corruptions.json')
    args = parser.parse_args()
    functions, x, rows = script_functions(args.script), load('cifar10', 'test', n=args.images).x, []
    np.random.seed(0)
    for kind in KINDS + EXTRA:
        if kind == 'frost' or kind in ('motion_blur', 'snow') and 'MotionImage' not in functions:
            print(f'{kind:18} not compared')
            continue
        for severity in (1, 2, 3, 4, 5):
            rows.append(compared(functions, x, kind, severity))
            print({k: round(v, 3) if isinstance(v, float) else v for k, v in rows[-1].items()}, flush=True)
    args.out.write_text(json.dumps(dict(images=args.images, rows=rows), indent=0) + '\n')

if __name__ == '__main__': main()
