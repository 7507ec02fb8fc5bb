"""Permutations of every architecture: `zoo.py [--only torch torchvision timm] [--largest 250e6]`.

Needs timm: `pip install robustnb[zoo]`. Each network is made with random weights (nothing is downloaded), one after the
other; its specification is derived and put to the test by `check_spec`, in float64. Networks with more than LARGEST
parameters are not tested, which takes four copies of them in float64. Finished networks are kept in
nbs/benchmarks/zoo.json, which the benchmark page reads, so the script can be interrupted; `--again` forgets them. Times
are CPU seconds of one thread, each beside those of one forward pass.
"""
import argparse, gc, json, time
from functools import partial
from importlib.metadata import version
from pathlib import Path
import torch, torchvision
from torch import nn
from robustnb.evidence.store import device_name
from robustnb.merging.permutations import check_spec, permutations

HERE = Path(__file__).parent.parent/'nbs'/'benchmarks'/'zoo.json'
# the first six could not be followed by torch.fx
TIMM = '''vgg11_bn tf_efficientnetv2_b0 mobilevit_xxs tiny_vit_5m_224 twins_svt_small vit_small_patch16_dinov3
resnet10t resnetv2_50x1_bit resnext26ts skresnet18 ecaresnet26t resnest14d res2net50_26w_4s densenet121 dla34 dpn68
cspresnet50 hrnet_w18_small mobilenetv3_small_100 mobilenetv4_conv_small mixnet_s ghostnet_100 regnety_002 rexnet_100
repvgg_a0 nfnet_l0 convnext_atto convnextv2_atto edgenext_xx_small poolformer_s12 inception_next_atto mambaout_femto
starnet_s1 ese_vovnet19b_dw selecsls42 vit_tiny_patch16_224 cait_xxs24_224 xcit_nano_12_p8_224
swin_tiny_patch4_window7_224 swinv2_tiny_window8_256 coat_lite_tiny convit_tiny crossvit_tiny_240 levit_128s pit_ti_224
mixer_s32_224 gmlp_s16_224 resmlp_12_224 beit_base_patch16_224 eva02_tiny_patch14_224 volo_d1_224 mvitv2_tiny pvt_v2_b0
efficientformer_l1 efficientvit_b0 fastvit_t8 coatnet_0_rw_224 hiera_tiny_224 visformer_tiny davit_tiny sequencer2d_s
focalnet_tiny_srf nest_tiny maxxvit_rmlp_nano_rw_256 tnt_s_legacy_patch16_224 vit_relpos_small_patch16_224 gcvit_xxtiny
xception41'''.split()

class Encoder(nn.Module):
    "Classifies sequences of words by the encoder of torch.nn"
    def __init__(self, words=8000, width=512):
        super().__init__()
        self.embed, self.place = nn.Embedding(words, width), nn.Parameter(torch.randn(64, width))
        layer = nn.TransformerEncoderLayer(width, 8, batch_first=True)
        self.encoder, self.head = nn.TransformerEncoder(layer, 6, enable_nested_tensor=False), nn.Linear(width, 4)
    def forward(self, words): return self.head(self.encoder(self.embed(words) + self.place[:words.shape[1]]).mean(1))

class Recurrent(nn.Module):
    "Classifies sequences of words by the last states of a bidirectional LSTM of two layers"
    def __init__(self, words=8000, width=256):
        super().__init__()
        self.embed, self.head = nn.Embedding(words, width), nn.Linear(2*width, 4)
        self.lstm = nn.LSTM(width, width, 2, batch_first=True, bidirectional=True)
    def forward(self, words):
        _, (h, _) = self.lstm(self.embed(words))
        return self.head(torch.cat((h[-2], h[-1]), 1))

class Block(nn.Module):
    "A layer of BERT: attention by separate projections, post-norm"
    def __init__(self, width, heads):
        super().__init__()
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.norm, self.last, self.heads = nn.LayerNorm(width), nn.LayerNorm(width), heads
        self.wide, self.back = nn.Linear(width, 4*width), nn.Linear(4*width, width)
    def forward(self, x, mask):
        q, k, v = (f(x).view(*x.shape[:2], self.heads, -1).transpose(1, 2) for f in (self.query, self.key, self.value))
        weights = (q @ k.transpose(-1, -2)/q.shape[-1]**.5 + mask).softmax(-1)
        x = self.norm(x + self.out((weights @ v).transpose(1, 2).flatten(2)))
        return self.last(x + self.back(nn.functional.gelu(self.wide(x))))

class Bert(nn.Module):
    "BERT-base for masked words: embeddings of word, place and segment, twelve layers, the head tied to the embedding"
    def __init__(self, words=30522, width=768, layers=12, heads=12):
        super().__init__()
        self.word, self.place, self.segment = (nn.Embedding(n, width) for n in (words, 512, 2))
        self.norm, self.layers = nn.LayerNorm(width), nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.dense, self.final, self.head = nn.Linear(width, width), nn.LayerNorm(width), nn.Linear(width, words)
        self.head.weight = self.word.weight
    def forward(self, words, there):
        x = self.word(words) + self.place(torch.arange(words.shape[1])) + self.segment(torch.zeros_like(words))
        x = self.norm(x)
        mask = (1 - there[:, None, None])*torch.finfo(x.dtype).min
        for layer in self.layers: x = layer(x, mask)
        return self.head(self.final(nn.functional.gelu(self.dense(x))))

def zoo(libraries):
    "library, name, function that makes the network, function that makes its input"
    pixels = lambda size: lambda: torch.rand(1, 3, size, size)
    words = lambda: torch.randint(0, 8000, (1, 32))
    if 'torch' in libraries:
        yield 'torch', 'transformer encoder', Encoder, words
        yield 'torch', 'LSTM classifier', Recurrent, words
        yield 'torch', 'BERT', Bert, lambda: (words(), torch.ones(1, 32))
    if 'torchvision' in libraries:
        for name in torchvision.models.list_models(module=torchvision.models):
            more = dict(aux_logits=False, init_weights=False) if name in ('googlenet', 'inception_v3') else {}
            size = 224 if name.startswith(('vit', 'swin', 'maxvit')) else 96 if name == 'inception_v3' else 64
            yield 'torchvision', name, partial(torchvision.models.get_model, name, **more), pixels(size)
    if 'timm' in libraries:
        import timm
        for name in TIMM:
            size = timm.get_pretrained_cfg(name).input_size[-1]
            yield 'timm', name, partial(timm.create_model, name), pixels(size)

def spent(run, times=1):
    "(CPU seconds, the least of several runs; what it gives)"
    best = float('inf')
    for _ in range(times):
        start = time.process_time()
        out = run()
        best = min(best, time.process_time() - start)
    return best, out

def measured(make, example, largest):
    "What is known about one network, as a dict"
    torch.manual_seed(0)
    model, x = make().eval(), example()
    count = sum(p.numel() for p in model.parameters())
    row = dict(parameters=count, size=list(x.shape) if isinstance(x, torch.Tensor) else list(x[0].shape))
    try: row['derive'], spec = spent(lambda: permutations(model, x))
    except ValueError as e: return row | dict(refused=str(e))
    own, moves = dict(model.named_parameters()), lambda key: any(s for layout in spec.axes[key] for s, _ in layout)
    row |= dict(symbols=len(spec.sizes), units=sum(spec.sizes.values()),
                moving=sum(p.numel() for k, p in own.items() if moves(k))/count)
    if count > largest: return row
    with torch.no_grad(): row['forward'] = spent(lambda: model(*x) if isinstance(x, tuple) else model(x), 3)[0]
    try: row['error'] = check_spec(model, spec, x, draws=1)
    except AssertionError as e: row['wrong'] = str(e)
    return row

def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--only', nargs='+', default=['torch', 'torchvision', 'timm'], help='libraries')
    parser.add_argument('--largest', type=float, default=250e6, help='parameters of the largest network to be tested')
    parser.add_argument('--again', action='store_true', help='forget what is stored')
    parser.add_argument('--out', type=Path, default=HERE)
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = json.loads(args.out.read_text()) if args.out.exists() and not args.again else []
    done = {(r['library'], r['model']) for r in rows}
    # what torch imports at its first use counts for none of them
    permutations(torchvision.models.resnet18(), torch.rand(1, 3, 64, 64))
    for library, name, make, example in zoo(args.only):
        if (library, name) in done: continue
        row = measured(make, example, args.largest)
        about = dict(version=version(library), torch=torch.__version__, device=device_name(torch.device('cpu')),
                     threads=1, date=time.strftime('%Y-%m-%d'))
        rows.append(dict(library=library, model=name) | row | dict(about=about))
        args.out.write_text(json.dumps(rows, indent=0) + '\n')
        print(library, name, {k: v for k, v in row.items() if k != 'size'}, flush=True)
        gc.collect()

if __name__ == '__main__': main()
