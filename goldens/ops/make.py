"""Writes small inputs of each operation of Weft's backends, and what PyTorch makes of them, as `ops.json`.

    python goldens/ops/make.py

Everything is computed in f64 by PyTorch's own operations, and gradients by its autograd: nothing here is translated from Weft.
The file is committed; `crates/weft-ops/tests/goldens.rs` compares.
"""

import json
import pathlib

import torch
import torch.nn.functional as F

CASES = {}
ACTIVATIONS = {
    "relu": F.relu,
    "tanh": torch.tanh,
    "gelu": F.gelu,
    "gelu-tanh": lambda x: F.gelu(x, approximate="tanh"),
    "silu": F.silu,
    "sigmoid": torch.sigmoid,
}


def draw(*shape):
    """Numbers that f32 and bf16 hold exactly, none of them 0."""
    return ((torch.randn(*shape, dtype=torch.float64) * 32).round() + 0.5) / 32


def case(name, output, inputs, extra=None):
    """Stores inputs, the output, and the gradient of its weighted sum with respect to each input."""
    weights = draw(*output.shape)
    leaves = [tensor for tensor in inputs.values() if tensor.requires_grad]
    gradients = iter(torch.autograd.grad((output * weights).sum(), leaves))
    stored = {"y": output, "w": weights} | inputs | (extra or {})
    stored |= {f"grad_{key}": next(gradients) for key, tensor in inputs.items() if tensor.requires_grad}
    CASES[name] = {key: tensor.detach().flatten().tolist() for key, tensor in stored.items()}


def leaf(*shape):
    return draw(*shape).requires_grad_()


def linear():
    n, r, i, o = 3, 4, 5, 6
    weight, bias = leaf(n, o, i), leaf(n, o)
    for name, x in {"linear": leaf(n, r, i), "linear-shared": leaf(r, i)}.items():
        case(name, x @ weight.transpose(1, 2) + bias[:, None], {"x": x, "weight": weight, "bias": bias})


def activations():
    for name, function in ACTIVATIONS.items():
        x = leaf(5, 12)
        case(f"activation-{name}", function(x), {"x": x})
        case(f"gated-{name}", function(x[:, :6]) * x[:, 6:], {"x": x})


def gates():
    r, i, o = 6, 3, 4
    x, weight, bias, residual, gate = leaf(r, i), leaf(o, i), leaf(o), leaf(r, o), leaf(2, o)
    y = residual + gate.repeat_interleave(3, 0) * F.linear(x, weight, bias)
    case("gate", y, {"x": x, "weight": weight, "bias": bias, "residual": residual, "gate": gate})


def norms():
    r, w = 6, 10
    for name, normalize in {
        "layer": lambda x: F.layer_norm(x, (w,), eps=1e-3),
        "rms": lambda x: F.rms_norm(x, (w,), eps=1e-3),
    }.items():
        x, add, gain, bias, shift, scale = leaf(r, w), draw(r, w), leaf(w), leaf(w), leaf(2, w), leaf(2, w)
        of_rows = [m.repeat_interleave(3, 0) for m in (shift, scale)]
        y = (normalize(x + add) * gain + bias) * (1 + of_rows[1]) + of_rows[0]
        case(f"norm-{name}", y, {"x": x, "add": add, "gain": gain, "bias": bias, "shift": shift, "scale": scale})


def attentions():
    b, t, k = 2, 7, 4
    for name, heads, kv_heads, causal in [("attention", 2, 2, False), ("attention-causal-grouped", 4, 2, True)]:
        packed = leaf(b, t, (heads + 2 * kv_heads) * k)
        q, key, value = packed.view(b, t, -1, k).transpose(1, 2).split([heads, kv_heads, kv_heads], 1)
        y = F.scaled_dot_product_attention(q, key, value, is_causal=causal, enable_gqa=heads != kv_heads)
        case(name, y.transpose(1, 2), {"packed": packed})


def losses():
    n, r, c = 3, 4, 5
    logits, labels = leaf(n, r, c), torch.randint(c, (n, r))
    y = torch.stack([F.cross_entropy(z, label) for z, label in zip(logits, labels)])
    case("cross-entropy", y, {"logits": logits}, {"labels": labels})
    x, targets, weights = leaf(r, c), draw(r, c), draw(r).abs()
    case("squared-error", (weights[:, None] * (x - targets).square()).mean()[None], {"x": x, "targets": targets, "weights": weights})


def batch_norms():
    n, r, c = 2, 8, 3
    for name, training in [("batch-norm-training", True), ("batch-norm-running", False)]:
        x, gain, bias, mean, variance = leaf(n, r, c), leaf(n, c), leaf(n, c), leaf(n, c), (draw(n, c).abs() + 0.5).requires_grad_()
        if training:
            moved = [mean.detach().clone(), variance.detach().clone()]
            of = [(moved[0][i], moved[1][i]) for i in range(n)]
            y = [F.batch_norm(x[i], *of[i], gain[i], bias[i], training=True, momentum=0.1, eps=1e-3) for i in range(n)]
            inputs = {"x": x, "gain": gain, "bias": bias, "mean": mean.detach(), "variance": variance.detach()}
            case(name, torch.stack(y), inputs, {"moved": torch.stack(moved, 1)})
        else:
            y = (x - mean[:, None]) / (variance[:, None] + 1e-3).sqrt() * gain[:, None] + bias[:, None]
            # PyTorch has no gradient of the running statistics; its formula has.
            running = F.batch_norm(x[0], mean[0].detach(), variance[0].detach(), gain[0], bias[0], eps=1e-3)
            torch.testing.assert_close(y[0], running)
            case(name, y, {"x": x, "gain": gain, "bias": bias, "mean": mean, "variance": variance})


def images():
    b, c, h, w = 2, 3, 5, 4
    x = leaf(b, h, w, c)
    first = x.permute(0, 3, 1, 2)
    windows = F.unfold(first, (3, 2), padding=(1, 0), stride=(2, 1))
    case("patches", windows.transpose(1, 2), {"x": x})
    window = ((2, 3), (2, 1), (1, 1))
    case("pool-max", F.max_pool2d(first, *window).permute(0, 2, 3, 1), {"x": x})
    case("pool-average", F.avg_pool2d(first, *window, count_include_pad=False).permute(0, 2, 3, 1), {"x": x})


def repeated():
    part, x = leaf(3, 4), draw(2, 3, 4)
    case("repeated", x + part, {"part": part, "x": x})


def optimizers():
    rules = {
        "sgd": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=0.1),
        "adam": lambda p: torch.optim.Adam(p, lr=0.05, weight_decay=0.1),
        "adamw": lambda p: torch.optim.AdamW(p, lr=0.05, weight_decay=0.1),
    }
    for name, rule in rules.items():
        theta = draw(9)
        parameter = torch.nn.Parameter(theta.clone())
        average, optimizer, gradients = theta.clone(), rule([parameter]), draw(4, 9)
        for gradient in gradients:
            # PyTorch's own clipping adds 1e-6 to the norm.
            parameter.grad = gradient * (2.5 / gradient.norm()).clamp(max=1)
            optimizer.step()
            average.lerp_(parameter.detach(), 0.25)
        stored = {"theta": theta, "gradients": gradients, "y": parameter, "average": average}
        CASES[f"optimizer-{name}"] = {key: tensor.detach().flatten().tolist() for key, tensor in stored.items()}


if __name__ == "__main__":
    torch.manual_seed(0)
    for write in (linear, activations, gates, norms, attentions, losses, batch_norms, images, repeated, optimizers):
        write()
    path = pathlib.Path(__file__).with_name("ops.json")
    cases = ",\n".join(f'"{name}": {json.dumps(tensors)}' for name, tensors in CASES.items())
    path.write_text("{\n" + cases + "\n}\n")
