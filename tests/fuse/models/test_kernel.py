"""The kernel model against scikit-learn and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.gaussian_process.kernels import RBF
from sklearn.linear_model import LogisticRegression

from fuse.models.kernel import JITTER, SCALE, KernelClassifier
from fuse.models.noise import count_noise
from fuse.setting import Setting
from fuse.training.classifier import matmul_precision

ROWS, DIMS = 30, {"text_mean": 5, "text_cls": 3, "image_mean": 4}


def vectors(rows: int, seed: int) -> dict[str, torch.Tensor]:
    """As a cache holds them: rounded to float16."""
    torch.manual_seed(seed)
    return {name: torch.randn(rows, dim).half().double() for name, dim in DIMS.items()}


def masks(rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.ones(rows, 1, dtype=torch.bool), torch.ones(rows, 1, dtype=torch.bool)


@pytest.fixture
def model() -> KernelClassifier:
    model = KernelClassifier(DIMS, 3, ROWS, 0.0).double()
    given = vectors(ROWS, 0)
    model.fit_standardisation(
        {name: (value.mean(0), value.std(0, correction=0)) for name, value in given.items()}
    )
    model.fit_landmarks(given)
    return model.eval()


def expected_kernel(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> np.ndarray:
    """A product of scikit-learn's Gaussian kernels, one a vector."""
    product = 1.0
    for name, dim in DIMS.items():
        mean, std = b[name].mean(0), b[name].std(0, correction=0)
        x, y = (((v[name] - mean) / std).numpy() for v in (a, b))
        product = product * RBF(np.sqrt(len(DIMS) * dim))(x, y)
    return np.asarray(product)


def test_every_vector_has_its_weight() -> None:
    dims = {"text_mean": 4, "text_ngrams:all": 6, "image_cls": 3, "image_other:cls": 5}
    model = KernelClassifier(dims, 3, ROWS, 0.0, "linear", image_weight=2.0, other_weight=3.0)
    torch.manual_seed(0)
    rows = {name: torch.randn(7, dim) for name, dim in dims.items()}
    found = model(vectors=rows)[1]["fused"]
    weights = {"text_mean": 1, "text_ngrams:all": 3, "image_cls": 2, "image_other:cls": 6}
    products = sum(w * rows[n] @ rows[n].T / dims[n] for n, w in weights.items())
    torch.testing.assert_close(found @ found.T, products)
    assert not [name for name in model.state_dict() if name.startswith("landmarks")]


def test_the_kernel_is_a_product_of_gaussian_ones(model: KernelClassifier) -> None:
    landmarks, rows = vectors(ROWS, 0), vectors(7, 1)
    _, out = model(None, masks(7)[0], None, masks(7)[1], rows)
    kernel = expected_kernel(rows, landmarks)
    gram = expected_kernel(landmarks, landmarks) + JITTER * np.eye(ROWS)
    features = out["fused"].numpy() / SCALE
    assert torch.equal(out["fused"], model(vectors=rows)[1]["fused"])  # no mask: nothing is missing
    # Whitened features have the kernel's own products: U·Uᵀ = K·G⁻¹·Kᵀ.
    np.testing.assert_allclose(
        features @ features.T, kernel @ np.linalg.solve(gram, kernel.T), atol=1e-5
    )


def test_the_kernel_of_weighted_vectors_by_hand() -> None:
    dims = {"text_mean": 4, "text_ngrams:all": 6, "image_cls": 3, "image_other:cls": 5}
    weights = {"text_mean": 1, "text_ngrams:all": 3, "image_cls": 2, "image_other:cls": 6}
    model = KernelClassifier(
        dims, 3, 6, 0.0, bandwidth=0.7, image_weight=2.0, other_weight=3.0
    ).double()
    torch.manual_seed(0)
    own = {name: torch.randn(6, dim).half().double() for name, dim in dims.items()}
    rows = {name: torch.randn(3, dim).half().double() for name, dim in dims.items()}
    features = model.fit_landmarks(own)
    torch.testing.assert_close(features, model(vectors=own)[1]["fused"])
    model.fold()  # the features are the kernel's values then
    there = {"text": [True, True, False], "image": [True, False, True]}
    masks = (torch.tensor(there[name])[:, None] for name in ("text", "image"))
    found = model(None, next(masks), None, next(masks), rows)[1]["fused"]
    for row in range(3):
        read = [name for name in dims if there[name.partition("_")[0]][row]]
        total = sum(weights[name] * (rows[name][row] - own[name]).square().mean(1) for name in read)
        expected = torch.exp(-0.7 * total / sum(weights[name] for name in read))
        torch.testing.assert_close(found[row], expected)


def test_trained_to_the_end_it_is_kernel_logistic_regression(model: KernelClassifier) -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, ROWS)
    rows, test = vectors(ROWS, 0), vectors(9, 2)
    with torch.no_grad():
        own, far = (
            model(None, *masks(n)[:1], None, masks(n)[1], v)[1]["fused"]
            for n, v in ((ROWS, rows), (9, test))
        )
    strength = 1e-3
    reference = LogisticRegression(C=1 / (strength * ROWS), tol=1e-10, max_iter=5000)
    reference.fit(own.numpy(), labels)
    optimiser = torch.optim.LBFGS(
        model.weight.parameters(),
        max_iter=2000,
        tolerance_grad=1e-10,
        tolerance_change=1e-16,
        line_search_fn="strong_wolfe",
    )

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        logits, _ = model(None, masks(ROWS)[0], None, masks(ROWS)[1], rows)
        value = torch.nn.functional.cross_entropy(logits, torch.tensor(labels))
        value = value + strength / 2 * model.weight.weight.square().sum()
        value.backward()
        return value

    optimiser.step(loss)
    with torch.no_grad():
        logits, _ = model(None, masks(9)[0], None, masks(9)[1], test)
    np.testing.assert_allclose(
        logits.softmax(1).numpy(), reference.predict_proba(far.numpy()), atol=5e-4
    )


def test_a_missing_modality_is_left_out_of_the_mean(model: KernelClassifier) -> None:
    rows = vectors(4, 3)
    text, image = masks(4)
    image[1:3] = False
    _, out = model(None, text, None, image, rows)
    changed = {**rows, "image_mean": torch.full((4, 4), 99.0)}
    _, other = model(None, text, None, image, changed)
    same = (out["fused"] == other["fused"]).all(1)
    assert same.tolist() == [False, True, True, False]
    neither = torch.zeros(4, 1, dtype=torch.bool)
    logits, _ = model(None, neither, None, neither, rows)
    assert logits.isfinite().all()


def test_folding_changes_nothing_but_the_size(model: KernelClassifier) -> None:
    with torch.no_grad():
        model.weight.weight.normal_()
    rows = vectors(5, 4)
    before, _ = model(None, masks(5)[0], None, masks(5)[1], rows)
    numbers = sum(value.numel() for value in model.state_dict().values())
    model.fold()
    after, _ = model(None, masks(5)[0], None, masks(5)[1], rows)
    torch.testing.assert_close(after, before)
    assert sum(v.numel() for v in model.state_dict().values()) == numbers - ROWS * ROWS
    model.fold()
    torch.testing.assert_close(model(None, *masks(5)[:1], None, masks(5)[1], rows)[0], before)


def test_a_saved_model_comes_back(model: KernelClassifier) -> None:
    with torch.no_grad():
        model.weight.weight.normal_()
    fresh = KernelClassifier(DIMS, 3, ROWS, 0.0).double().eval()
    fresh.load_state_dict(model.state_dict())
    rows = vectors(4, 5)
    assert torch.equal(fresh(vectors=rows)[0], model(vectors=rows)[0])


def test_doubled_landmarks_do_no_harm() -> None:
    model = KernelClassifier(DIMS, 3, 6, 0.0)
    half = vectors(3, 0)
    twice = {name: torch.cat([value, value]) for name, value in half.items()}
    model.fit_landmarks(twice)
    assert model.whitening.isfinite().all()


def test_dropout_takes_its_noise_from_the_context() -> None:
    model = KernelClassifier(DIMS, 3, 6, 0.5).train()
    model.fit_landmarks(vectors(6, 0))
    assert count_noise(model, None, masks(4)[0], None, masks(4)[1], vectors(4, 1)) == 4 * 6


def test_it_computes_in_float32() -> None:
    for setting, want in ((Setting(), "bf16"), (Setting(fusion="kernel"), "ieee")):
        with matmul_precision(setting):
            assert torch.backends.mkldnn.matmul.fp32_precision == want  # type: ignore[attr-defined]
