"""Attack 16 photographs, without and with PRECODE, and draw what comes back."""

import sys

import torch

from precode_lib.attacks import iga, progress
from precode_lib.bottleneck import with_precode
from precode_lib.data import victims
from precode_lib.federated import observe
from precode_lib.models import smlp
from precode_lib.plots import to_image

iterations = int(sys.argv[1]) if len(sys.argv) > 1 else 400
generator = torch.Generator().manual_seed(0)
photos = victims("photos", 16)  # 16 clients with one photograph each
normal = photos.normalisation
images, labels = normal.normalise(photos.pixels)[:, None], photos.labels[:, None]
plain, rows = smlp(generator=generator), [photos.pixels]
for model in (plain, with_precode(plain, before="fc", generator=generator)):
    seen = observe(model, images, labels, normalisation=normal, noise=generator)
    attack = iga(seen, generator=generator, iterations=iterations)
    for _ in progress(attack):
        pass  # or watch step.images, or stop early
    rows.append(attack.result.pixels[:, 0])
sheet = torch.cat([torch.cat([*row], dim=2) for row in rows], dim=1)
to_image(sheet).resize((16 * 96, 3 * 96), resample=0).save("attacked.png")
