"""Other packages on the same cells, each in a separate process: run by :mod:`benchmarks.train` and `.encode`.

    python benchmarks/_peers.py PACKAGE:ARCHITECTURE cells.npz '{"n_features": 512, ...}'

Imports nothing of sparsesc, so that it also runs in an environment that holds the peers alone. Prints one JSON line.
"""

from __future__ import annotations

import contextlib
import io
import json
import resource
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

Coder = tuple[Callable[[torch.Tensor], torch.Tensor], Callable[[torch.Tensor], torch.Tensor]]


def batches(X: torch.Tensor, size: int, steps: int) -> Iterator[torch.Tensor]:
    """Batches of cells in random order, epoch after epoch."""
    generator, done = torch.Generator().manual_seed(0), 0
    while done < steps:
        order = torch.randperm(len(X), generator=generator)
        for i in range(0, len(X) - size + 1, size):
            if done == steps:
                return
            yield X[order[i : i + size]]
            done += 1


def sae_lens(X: torch.Tensor, o: dict[str, Any], architecture: str) -> tuple[float, Coder]:
    """SAELens' trainer."""
    from sae_lens.config import LoggingConfig, SAETrainerConfig
    from sae_lens.saes.batchtopk_sae import BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig
    from sae_lens.saes.topk_sae import TopKTrainingSAE, TopKTrainingSAEConfig
    from sae_lens.training.sae_trainer import SAETrainer

    kind, config = {
        "topk": (TopKTrainingSAE, TopKTrainingSAEConfig),
        "batchtopk": (BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig),
    }[architecture]
    shape = {"d_in": X.shape[1], "d_sae": o["n_features"], "k": o["k"]}
    sae = kind(config(**shape, device="cpu", dtype="float32", normalize_activations="none"))
    steps, size = o["steps"], o["batch_size"]
    silent = LoggingConfig(log_to_wandb=False, eval_every_n_wandb_logs=2**31 - 1)
    settings = SAETrainerConfig(
        total_training_samples=steps * size, train_batch_size_samples=size, lr=o["lr"], lr_end=o["lr"] / 10,
        lr_decay_steps=steps // 5, device="cpu", logger=silent,
    )  # fmt: skip
    trainer = SAETrainer(cfg=settings, sae=sae, data_provider=batches(X, size, steps + 8))
    begun = time.perf_counter()
    trainer.fit()
    seconds = time.perf_counter() - begun
    sae.eval()

    def encode(x: torch.Tensor) -> torch.Tensor:
        z = sae.encode(x)
        return z.to_dense() if z.is_sparse else z

    return seconds, (encode, sae.decode)


def dictionary_learning(X: torch.Tensor, o: dict[str, Any], architecture: str) -> tuple[float, Coder]:
    """dictionary_learning's trainers."""
    from dictionary_learning.trainers.batch_top_k import BatchTopKTrainer
    from dictionary_learning.trainers.top_k import TopKTrainer

    steps = o["steps"]
    trainer = {"topk": TopKTrainer, "batchtopk": BatchTopKTrainer}[architecture](
        steps=steps, activation_dim=X.shape[1], dict_size=o["n_features"], k=o["k"], layer=0, lm_name="cells",
        lr=o["lr"], warmup_steps=min(100, steps // 10), decay_start=int(steps * 0.8), threshold_start_step=steps // 2,
        device="cpu", seed=0,
    )  # fmt: skip
    trainer.dead_feature_threshold = len(X)  # its default, ten million, is never reached here
    begun = time.perf_counter()
    for i, x in enumerate(batches(X, o["batch_size"], steps)):
        trainer.update(i, x)
    seconds = time.perf_counter() - begun
    use = {} if architecture == "topk" else {"use_threshold": True}
    return seconds, (lambda x: trainer.ae.encode(x, **use), trainer.ae.decode)


def sparsify(X: torch.Tensor, o: dict[str, Any], architecture: str) -> tuple[float, Coder]:
    """EleutherAI's SparseCoder; its trainer is tied to language models, so the loop is the plain one."""
    from sparsify import SparseCoder, SparseCoderConfig

    n_features = o["n_features"]
    coder = SparseCoder(X.shape[1], SparseCoderConfig(num_latents=n_features, k=o["k"]))
    optimizer = torch.optim.Adam(coder.parameters(), lr=o["lr"])
    silent = torch.zeros(n_features)
    begun = time.perf_counter()
    for x in batches(X, o["batch_size"], o["steps"]):
        out = coder(x, dead_mask=silent > len(X))
        optimizer.zero_grad()
        (out.fvu + out.auxk_loss / 32).backward()
        coder.remove_gradient_parallel_to_decoder_directions()
        optimizer.step()
        coder.set_decoder_norm_to_unit_norm()
        silent += len(x)
        silent[out.latent_indices.flatten().unique()] = 0
    seconds = time.perf_counter() - begun

    def encode(x: torch.Tensor) -> torch.Tensor:
        value, index, _ = coder.encode(x)
        return torch.zeros(len(x), n_features).scatter(1, index, value)

    return seconds, (encode, lambda z: z @ coder.W_dec + coder.b_dec)


def overcomplete(X: torch.Tensor, o: dict[str, Any], architecture: str) -> tuple[float, Coder]:
    """Overcomplete's models and its training function."""
    import matplotlib

    if not hasattr(matplotlib.cm, "get_cmap"):  # it imports plots that ask for what newer matplotlib has no more
        matplotlib.cm.get_cmap = lambda name=None: matplotlib.colormaps[name]
        import matplotlib.pyplot

        matplotlib.pyplot.cm.get_cmap = matplotlib.cm.get_cmap
    from overcomplete.sae import BatchTopKSAE, TopKSAE
    from overcomplete.sae.train import train_sae

    steps, size = o["steps"], o["batch_size"]
    k = o["k"] if architecture == "topk" else o["k"] * size
    model = {"topk": TopKSAE, "batchtopk": BatchTopKSAE}[architecture](X.shape[1], nb_concepts=o["n_features"], top_k=k)
    optimizer = torch.optim.Adam(model.parameters(), lr=o["lr"])

    def loss(x: torch.Tensor, x_hat: torch.Tensor, pre: torch.Tensor, z: torch.Tensor, D: torch.Tensor) -> torch.Tensor:
        return (x - x_hat).square().mean()

    begun = time.perf_counter()
    train_sae(model, list(batches(X, size, steps)), loss, optimizer, nb_epochs=1, monitoring=0)
    seconds = time.perf_counter() - begun
    model.eval()
    return seconds, (lambda x: model.encode(x)[1], model.decode)


def sklearn(X: torch.Tensor, o: dict[str, Any], architecture: str) -> tuple[float, Coder]:
    """Online dictionary learning (Mairal et al. 2009), coded by orthogonal matching pursuit afterwards."""
    from sklearn.decomposition import MiniBatchDictionaryLearning

    model = MiniBatchDictionaryLearning(
        o["n_features"], batch_size=o["batch_size"], max_iter=max(1, o["steps"] * o["batch_size"] // len(X)),
        transform_algorithm="omp", transform_n_nonzero_coefs=o["k"], fit_algorithm="cd", random_state=0,
    )  # fmt: skip
    begun = time.perf_counter()
    model.fit(X.numpy())
    seconds = time.perf_counter() - begun
    D = torch.from_numpy(model.components_).float()
    return seconds, (lambda x: torch.from_numpy(model.transform(x.numpy())).float(), lambda z: z @ D)


def quality(coder: Coder, V: torch.Tensor) -> dict[str, float]:
    """FVU, share of features that fire in no held-out cell, and L0."""
    encode, decode = coder
    with torch.no_grad():
        codes = [encode(v) for v in V.split(1024)]
        error = sum((v - decode(z)).square().sum().item() for v, z in zip(V.split(1024), codes, strict=True))
    fires = torch.cat([z != 0 for z in codes])
    return {
        "fvu": error / (V - V.mean(0)).square().sum().item(),
        "dead": (~fires.any(0)).float().mean().item(),
        "l0": fires.float().sum(1).mean().item(),
    }


def main() -> None:
    """Train one peer, print what came out."""
    name, path, options = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
    torch.set_num_threads(options["threads"])
    torch.manual_seed(0)
    package, architecture = name.split(":")
    data = np.load(path)
    X, V = torch.from_numpy(data["X"]), torch.from_numpy(data["V"])
    with contextlib.redirect_stdout(io.StringIO()):
        seconds, coder = globals()[package](X, options, architecture)
    result = quality(coder, V)
    if options.get("encode"):  # how fast it encodes, for benchmarks.encode
        with torch.no_grad():
            begun = time.perf_counter()
            for x in X.split(4096):
                coder[0](x)
            result["encode_seconds"] = time.perf_counter() - begun
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": seconds, "peak_mib": peak, **result}))


if __name__ == "__main__":
    main()
