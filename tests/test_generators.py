import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lpt.errors import LptError
from lpt.generators import GENERATORS, build_generator
from lpt.generators.attentive import Rational
from lpt.generators.paper import PHMLinear, adaptive_bins, average_pool, max_pool

H, M = 6, 4


@pytest.mark.parametrize("bins", [1, 2, 5, 20])
@pytest.mark.parametrize(
    ("pool", "reference"), [(average_pool, F.adaptive_avg_pool1d), (max_pool, F.adaptive_max_pool1d)]
)
def test_pooling_a_batch_equals_adaptive_pooling_of_each_row(bins, pool, reference):
    """Also where a row has fewer tokens than bins, and wherever its padding is."""
    x = torch.randn(6, 12, M)
    mask = torch.zeros(6, 12, dtype=torch.bool)
    spans = [(0, 1), (0, 12), (5, 12), (3, 7), (11, 12), (0, 3)]
    for row, (start, stop) in enumerate(spans):
        mask[row, start:stop] = True
    pooled = pool(x, adaptive_bins(mask, bins))
    for row, (start, stop) in enumerate(spans):
        expected = reference(x[row, start:stop].T[None], bins)[0].T
        torch.testing.assert_close(pooled[row], expected)


def test_pooling_skips_holes_in_the_mask():
    x = torch.randn(1, 5, M)
    mask = torch.tensor([[True, False, True, True, False]])
    expected = F.adaptive_avg_pool1d(x[:, [0, 2, 3]].transpose(1, 2), 2).transpose(1, 2)
    torch.testing.assert_close(average_pool(x, adaptive_bins(mask, 2)), expected)


@pytest.mark.parametrize("name", GENERATORS)
def test_what_stands_outside_the_mask_changes_nothing(name):
    generator = build_generator(name, H, prompt_length=4, bottleneck=M)
    h, summary = torch.randn(3, 8, H), torch.tensor([2, 0, 3])
    mask = torch.arange(8) < torch.tensor([3, 1, 6])[:, None]
    noisy = torch.where(mask[..., None], h, 100 * torch.randn_like(h))
    torch.testing.assert_close(generator(h, summary, mask), generator(noisy, summary, mask))


@pytest.mark.parametrize(
    ("name", "closed_form"),
    [
        ("npg", lambda h, m, p: h * m + m + m * p * h + p * h),
        ("appg", lambda h, m, p: h * m + m + m * h + h),
        ("mppg", lambda h, m, p: h * m + m + m * h + h),
        ("phm", lambda h, m, p: 16**3 + h * m // 16 + m + 16**3 + m * p * h // 16 + p * h),
        ("none", lambda h, m, p: p * h),
        ("attentive", lambda h, m, p: h * m + m + m * p + 10 + m * h + h),
        ("inception", lambda h, m, p: p * h + sum(2 * h * (m >> i) + (m >> i) + h for i in range(3))),
    ],
)
def test_parameters_have_their_closed_form(name, closed_form):
    with torch.device("meta"):
        for h, m, p in [(1024, 128, 5), (576, 16, 20)]:
            generator = build_generator(name, h, p, m)
            assert sum(t.numel() for t in generator.parameters()) == closed_form(h, m, p)


def test_npg_of_the_papers_roberta_large_trains_791680_parameters():
    with torch.device("meta"):
        generator = build_generator("npg", 1024, prompt_length=5, bottleneck=128)
    assert sum(t.numel() for t in generator.parameters()) == 791_680


@pytest.mark.parametrize("n", [1, 2, 4])
def test_a_hypercomplex_map_is_the_sum_of_its_kronecker_products(n):
    layer, x = PHMLinear(8, 12, n), torch.randn(5, 3, 8)
    nn.init.normal_(layer.bias)
    assert sum(p.numel() for p in layer.parameters()) == n**3 + 8 * 12 // n + 12
    dense = sum(torch.kron(a, b) for a, b in zip(layer.a, layer.b, strict=True))
    torch.testing.assert_close(layer(x), x @ dense + layer.bias)


def test_a_hypercomplex_map_starts_about_as_large_as_a_linear_layer():
    layer = PHMLinear(256, 512, 16)
    dense = sum(torch.kron(a, b) for a, b in zip(layer.a, layer.b, strict=True))
    linear = nn.init.xavier_uniform_(torch.empty(256, 512))
    assert 0.5 < dense.std() / linear.std() < 2
    assert not layer.bias.any()


@pytest.mark.parametrize(("sizes", "n"), [((1024, 256), 16), ((576, 128), 16), ((24, 12), 4), ((6, 3), 1)])
def test_phm_takes_the_largest_number_of_products_up_to_16_that_divides_its_sizes(sizes, n):
    with torch.device("meta"):
        generator = build_generator("phm", sizes[0], 5, sizes[1])
    assert len(generator.proj_down.a) == len(generator.proj_up.a) == n


def test_attention_gathers_the_tokens_that_pooling_may_see():
    generator = build_generator("attentive", H, prompt_length=2, bottleneck=M)
    h, mask = torch.randn(2, 5, H), torch.arange(5) < torch.tensor([5, 3])[:, None]
    written = generator(h, torch.tensor([4, 2]), mask)
    for row, length in enumerate((5, 3)):
        x = generator.proj_down(h[row, :length])
        gathered = generator.pool(x).softmax(0).T @ x
        torch.testing.assert_close(written[row], generator.proj_up(generator.activation(gathered)))


def test_the_learned_activation_starts_as_gelu_and_is_a_quotient_of_polynomials():
    x, activation = torch.linspace(-4, 4, 101), Rational()
    assert (activation(x) - F.gelu(x)).abs().max() < 0.03
    nn.init.normal_(activation.above)
    nn.init.normal_(activation.below)
    above = sum(a * x**i for i, a in enumerate(activation.above))
    below = 1 + sum(b * x ** (i + 1) for i, b in enumerate(activation.below)).abs()
    torch.testing.assert_close(activation(x), above / below)
    huge = torch.tensor([0.0, 1.0, -1e9, 1e20], requires_grad=True)  # as large as states of some models, and larger
    activation(huge).sum().backward()
    assert all(g.isfinite().all() for g in (activation(huge), huge.grad, activation.above.grad, activation.below.grad))


@pytest.mark.parametrize("initial", ["learned", "pooled"])
def test_bottlenecks_side_by_side_are_added_to_the_initial_prompt(initial):
    generator = build_generator("inception", H, prompt_length=2, bottleneck=M, initial=initial)
    assert [branch[0].out_features for branch in generator.branches] == [4, 2, 1]
    h, mask = torch.randn(1, 4, H), torch.ones(1, 4, dtype=torch.bool)
    start = generator.prompt if initial == "learned" else h[0].view(2, 2, H).mean(1)
    expected = start + sum(branch(start) for branch in generator.branches)
    torch.testing.assert_close(generator(h, torch.tensor([3]), mask)[0], expected)


def test_an_inception_of_bottlenecks_that_do_not_exist_is_refused():
    for options, message in (
        ({"branches": 4}, "bottleneck=4 is too small for branches=4"),
        ({"initial": "x"}, "initial="),
    ):
        with pytest.raises(LptError, match=message):
            build_generator("inception", H, 2, M, **options)
    with pytest.raises(LptError, match="no prompt of its own to start from"):
        build_generator("inception", H, 2, M, initial="pooled").start_from(torch.randn(2, H))


@pytest.mark.parametrize("name", GENERATORS)
def test_prompts_have_the_backbones_dtype_and_gradients_the_generators(name):
    generator = build_generator(name, H, prompt_length=4, bottleneck=M)
    h = torch.randn(2, 5, H, dtype=torch.bfloat16)
    prompt = generator(h, torch.tensor([0, 4]), torch.ones(2, 5, dtype=torch.bool))
    assert prompt.shape == (2, 4, H)
    assert prompt.dtype == torch.bfloat16
    prompt.sum().backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in generator.parameters())


def test_generators_compute_in_float32_under_autocast_too():
    generator = build_generator("npg", H, prompt_length=4, bottleneck=M)
    h, summary, mask = torch.randn(2, 5, H), torch.tensor([0, 4]), torch.ones(2, 5, dtype=torch.bool)
    plain = generator(h, summary, mask)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(generator(h, summary, mask), plain)


def test_dropout_acts_in_training_alone():
    generator = build_generator("npg", H, prompt_length=50, bottleneck=M, dropout=0.5)
    inputs = torch.randn(2, 5, H), torch.tensor([0, 4]), torch.ones(2, 5, dtype=torch.bool)
    share = (generator.train()(*inputs) == 0).float().mean()
    assert 0.3 < share < 0.7
    assert not (generator.eval()(*inputs) == 0).any()


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("name", ["npg", "phm", "none"])
def test_a_prompt_can_start_from_given_rows(name, normalize):
    """Exactly from these, where the generator adds nothing of its own and the states are as large as the rows."""
    generator = build_generator(name, H, prompt_length=3, bottleneck=M, normalize=normalize)
    rows, h = (7 * F.rms_norm(torch.randn(shape), (H,)) for shape in ((3, H), (2, 5, H)))
    generator.start_from(rows)
    if name != "none":
        nn.init.zeros_(generator.proj_up.weight if name == "npg" else generator.proj_up.b)
    written = generator(h, torch.tensor([0, 4]), torch.ones(2, 5, dtype=torch.bool))
    torch.testing.assert_close(written, rows.expand(2, -1, -1))


@pytest.mark.parametrize("name", ["appg", "mppg"])
def test_a_generator_without_rows_of_its_own_cannot_start_from_any(name):
    with pytest.raises(LptError, match="use generator npg, phm or none"):
        build_generator(name, H, prompt_length=3, bottleneck=M).start_from(torch.randn(3, H))


@pytest.mark.parametrize("name", GENERATORS)
def test_in_units_of_the_states_a_prompt_grows_with_them(name):
    """So that one learning rate suits every layer. One huge token, as first tokens are, changes nothing of that."""
    generator = build_generator(name, H, prompt_length=3, bottleneck=M, normalize=True)
    h, summary, mask = torch.randn(2, 6, H), torch.tensor([1, 4]), torch.ones(2, 6, dtype=torch.bool)
    written = generator(h, summary, mask)
    torch.testing.assert_close(generator(100 * h, summary, mask), 100 * written, rtol=1e-4, atol=1e-4)
    h[:, 0] *= 1000
    torch.testing.assert_close(generator(h, summary, mask), written, rtol=0.5, atol=0.5)


def test_an_unknown_generator_is_refused_with_the_nearest_name():
    with pytest.raises(LptError, match=r"generator=npq is not known; choose one of .*did you mean 'npg'"):
        build_generator("npq", H, 5, M)


@pytest.mark.parametrize(("sizes", "option"), [((0, 8), "prompt_length=0"), ((5, 0), "bottleneck=0")])
def test_sizes_below_one_are_refused(sizes, option):
    with pytest.raises(LptError, match=f"{option} is too small"):
        build_generator("npg", H, *sizes)
