"""Lines of torch: {a}, {b}, {c} are values, {w}, {v}, {m}, {k} a matrix, a vector, a mask, places.

{B} is the batch's size; {n}, {i}, {j} small numbers, {d}, {e} axes, {p} their order.

Non-Goals: which are taken together (`torch_steps`).
"""

from __future__ import annotations


def lines_of(text: str) -> tuple[str, ...]:
    """One each; a \\n stands for a new line."""
    return tuple(line.replace("\\n", "\n") for line in text.strip().splitlines())


UNARY = lines_of(
    r"""
torch.tanh({a})
torch.sigmoid({a})
torch.relu({a})
F.softplus({a})
F.silu({a})
F.gelu({a})
F.gelu({a}, approximate='tanh')
F.elu({a})
F.selu({a})
F.celu({a}, 0.7)
F.leaky_relu({a}, 0.2)
F.hardtanh({a})
F.hardsigmoid({a})
F.hardswish({a})
F.softsign({a})
F.mish({a})
F.logsigmoid({a})
F.relu6({a})
F.tanhshrink({a})
F.softshrink({a}, 0.3)
F.hardshrink({a}, 0.3)
F.threshold({a}, 0.1, 0.2)
F.softplus({a}, beta=2.0)
F.normalize({a}, dim=-1)
F.normalize({a}, p=1, dim=-1)
torch.exp(-{a}.abs())
torch.log1p({a}.abs())
torch.log({a} * {a} + 0.1)
torch.sqrt({a}.square() + 0.1)
torch.rsqrt({a} ** 2 + 1)
{a}.abs()
-{a}
torch.sign({a}) * {b}
torch.sin({a})
torch.cos({a})
torch.atan({a})
torch.erf({a})
torch.expm1(-{a}.abs())
{a} ** 3
{a} ** 2
2 ** -{a}.abs()
1 / (1 + {a} * {a})
3 - {a}
{a} / 2
{a} * -0.5 + 1
{a}.clamp(-0.5, 0.7)
{a}.clamp(min=0)
{a}.clamp_max(0.3)
torch.floor({a}) + {a}
torch.ceil({a}) * 0.1
torch.round({a} * 3)
torch.trunc({a})
torch.frac({a})
{a} % 0.7
{a} // 0.4
torch.fmod({a}, 0.6)
{a}.detach() * {b}
{a}.detach()
{a} + ({a}.round() - {a}).detach()
torch.softmax({a}, {d})
torch.log_softmax({a}, {d})
torch.cumsum({a}, {d})
{a}.flip({d})
torch.roll({a}, {n}, {d})
{a}.sum({d})
{a}.mean({d}, keepdim=True)
{a}.amax({d})
{a}.amin({d}, keepdim=True)
{a}.max({d}).values
{a}.min({d})[0]
{a}.prod({d})
{a}.var({d}, keepdim=True)
{a}.std({d}, unbiased=False)
torch.logsumexp({a}, {d})
{a}.norm(dim={d})
{a}.norm(1, {d}, keepdim=True)
torch.linalg.vector_norm({a}, float('inf'), {d})
{a}.sum()
{a}.mean((-1,))
F.layer_norm({a}, {a}.shape[-1:])
F.layer_norm({a}, {a}.shape[1:])
F.rms_norm({a}, {a}.shape[-1:])
F.glu({a}, {d})
{a}.unsqueeze({d})
{a}.squeeze({d})
{a}.squeeze()
{a}.flatten(1)
{a}.flatten(0, 1)
{a}.reshape({B}, -1)
{a}.view(-1, {a}.shape[-1])
{a}.reshape(-1)
{a}.reshape({B}, {n}, -1)
{a}.reshape({B} * {n}, -1)
{a}.reshape(-1, {n})
{a}.view({a}.shape[0], -1, {n})
{a}.transpose({d}, {e})
{a}.transpose(0, 1)
{a}.permute({p})
{a}.mT
{a}.t()
{a}.movedim(1, {d})
{a}.expand({n}, *{a}.shape)
{a}.expand({B}, {n}, -1)
{a}.repeat(1, {n})
{a}.repeat_interleave({n}, {d})
{a}.tile({n})
{a}[:, {i}]
{a}[:, {i}:]
{a}[:, :{i}]
{a}[..., {i}:{j}]
{a}[..., ::2]
{a}[:, None]
{a}[..., None]
{a}[..., -1:]
{a}.narrow({d}, {i}, {n})
{a}.select({d}, {i})
{a}.chunk({n}, {d})[{i}]
{a}.split({n}, {d})[{i}]
{a}.unbind({d})[{i}]
{a}.diff(dim={d})
F.pad({a}, ({i}, {n}))
F.pad({a}, (-1, {i}))
F.pad({a}, (1, 0), value=0.3)
{a}.unfold({d}, 2, 1)
{a}.tril()
{a}.triu(1)
{a}.diagonal(dim1=-2, dim2=-1)
torch.diag_embed({a})
{a}.double()
{a} + torch.arange({a}.shape[-1], dtype={a}.dtype)
{a} * torch.eye({a}.shape[-1], dtype={a}.dtype)[0]
{a} * torch.linspace(0, 1, {a}.shape[-1], dtype={a}.dtype)
{a} + torch.zeros_like({a})
torch.ones({B}, {n}, dtype={a}.dtype)
torch.full_like({a}, 0.3) * {a}
({a} > 0).to({a}.dtype)
({a} > {b}).double() * {a}
{a}.bool().double()
{a}.long().double() * {b}
({a} * 3).int() * 0.5
({a} > 0).sum({d}).double()
({a} > 0).any({d}, keepdim=True) * 1.0
({a} > -0.5).all({d}).double()
F.one_hot(torch.arange(3), 3).double()[0] + {a}
{a} + torch.tensor([0.5])
{a} * torch.tensor(0.3, dtype={a}.dtype)
F.linear({a}, {w})
nn.Identity()({a})
torch.heaviside({a}, torch.tensor(0.5, dtype={a}.dtype)) * {b}
torch.nan_to_num({a})
{a}.masked_fill({a} < 0, 0.0)
torch.softmax({a}.masked_fill({a} < 0, float('-inf')) , -1).nan_to_num()
{a}.clone()
{a}.contiguous()
{a}.swapaxes(-1, {d})
{a}.ravel()
{a}.view_as({b})
"""
)
BINARY = lines_of(
    r"""
{a} + {b}
{a} - {b}
{a} * {b}
{a} / ({b} * {b} + 0.5)
{a} + 0.5 * {b}
torch.add({a}, {b}, alpha=0.3)
torch.sub({a}, {b}, alpha=-2)
torch.maximum({a}, {b})
torch.minimum({a}, {b})
torch.max({a}, {b})
torch.fmin({a}, {b})
torch.where({a} > {b}, {a}, 0.3 * {b})
torch.where({a} > 0, {b}, 0.0)
torch.where(({a} > 0) & ~({b} > 0), {a}, {b})
torch.where(({a} > 0) | ({b} < 0.1), 1.0, {b})
torch.where(({a} > 0) ^ ({b} > 0), {a}, {b})
torch.lerp({a}, {b}, 0.3)
torch.lerp({a}, {b}, torch.sigmoid({c}))
torch.addcmul({a}, {b}, {c}, value=0.4)
torch.addcdiv({a}, {b}, {c}.abs() + 1)
torch.atan2({a}, {b})
torch.hypot({a}, {b})
torch.logaddexp({a}, {b})
({a} >= {b}) * {c}
torch.pow({a}.abs() + 0.5, {b})
torch.cat([{a}, {b}], {d})
torch.cat([{a}, {b}, {a}], -1)
torch.stack([{a}, {b}], {d})
torch.hstack([{a}, {b}])
torch.einsum('bi,bj->bij', {a}, {b})
torch.einsum('bi,bi->b', {a}, {b})
torch.einsum('bij,bj->bi', {a}, {b})
torch.einsum('bij,bjk->bik', {a}, {b})
torch.einsum('bij,bkj->bik', {a}, {b})
torch.einsum('bi,ij->bj', {a}, {w})
torch.einsum('...i,ij->...j', {a}, {w})
torch.bmm({a}, {b})
torch.matmul({a}, {b})
{a} @ {b}
({a}.unsqueeze(1) @ {b}).squeeze(1)
({b} @ {a}.unsqueeze(-1)).squeeze(-1)
{a} @ {w}
{a} @ {w} + {b}
F.linear({a}, {w}.t())
torch.addmm({b}, {a}, {w})
torch.addmm({b}, {a}, {w}, beta=0.5, alpha=2)
torch.baddbmm({c}, {a}, {b})
torch.outer({a}[0], {b}[0])
({a} * {b}).sum(-1, keepdim=True)
({a} * {b}).sum(-1, keepdim=True) * {a}
{a}.unsqueeze(-1) * {b}.unsqueeze(1)
{a}[..., None] * {b}[:, None]
F.cosine_similarity({a} + 0.1, {b}, dim={d})
torch.dist({a}, {b})
{a} * {v}
{a} + {v}
{v} / (1 + {a} * {a})
{a}.masked_fill({b} > 0, 0.25)
F.prelu({a}, {v}[:1])
torch.clamp({a}, {b} - 1, {b} + 1)
torch.where({m}, {a}, {b})
{a} * {m}
torch.cross({a}, {b}, dim=-1)
torch.kron({a}, {b})
{a}.expand_as({b})
torch.broadcast_tensors({a}, {b})[0]
F.scaled_dot_product_attention({a}, {b}, {b})
{a}.index_select(-1, {k})
{a}[..., {k}]
{a}.gather(-1, ({b} > 0).long())
torch.func.vmap(lambda u, v: u * v.sum())({a}, {b})
Slope.apply({a})
Slope.apply({a}) * {b}
"""
)
# Of several lines; {r} is the new name.
SEVERAL = lines_of(
    r"""
{r} = {a}.clone(); {r}[:, {i}:] = 0.5
{r} = {a}.clone(); {r}[:, {i}] += {b}[:, {j}]
{r} = {a} * 1; {r}.mul_({b})
{r} = {a} + 0; {r}.add_({b}, alpha=0.5).tanh_()
{r} = torch.zeros({B}, {n}, dtype={a}.dtype); {r}[:, {i}:] = {a}[:, :{n} - {i}]
{r} = torch.zeros_like({a}); {r}[..., ::2] = {a}[..., ::2]
{r} = {a}.clone(); {r}[{r} > 0] = 0.1
{r} = {a}.clone(); u = {r}[:, {i}:]; u.sigmoid_()
{r} = {a}.clone(); {r}.copy_({b})
{r} = {a}.clone(); u, v = {r}.chunk(2, -1); u *= v
{r} = {a}.clone().fill_(0.3) * {b}
{r} = {a}.clone(); u = {r}.view({B}, -1); u[:, 0].zero_()
{r} = {a}.clone(); {r}.t().mul_(2)
{r} = {a}.clone(); u = {r}[:, 0]; {r}.mul_(2); {r} = {r} + u.unsqueeze(1)
{r} = {a}.clone(); {r}.masked_fill_({a} > {b}, -0.2)
{r} = {a}.clone(); {r}.clamp_(min=-0.1)
{r} = {a}.clone(); u = {r}.transpose(0, 1); u[{i}] = {b}[:, {j}]
{r} = {a} + 1; {r} /= {b} * {b} + 1; {r} -= {c}
{r} = {a}.clone(); {r}.detach().mul_(1.5)
with torch.no_grad(): {r} = {a} * {b}
with torch.no_grad(): u = {a}.sum(-1, keepdim=True)\n        {r} = {b} / (1 + u * u)
u, v = {a}.chunk(2, -1); {r} = u * torch.sigmoid(v)
u, v, q = {a}.split([1, 1, {n}], {d}); {r} = u + v * q.sum({d}, keepdim=True)
{r} = {a}\n        for i in range(3): {r} = torch.tanh({r} + 0.1 * i * {b})
{r} = sum(p.square() for p in {a}.unbind(-1))
{r} = torch.stack([u * i for i, u in enumerate({a}.unbind(-1))], {d})
u, v = torch.var_mean({a}, -1, keepdim=True); {r} = ({a} - v) / (u + 0.1).sqrt()
{r} = {a}.clone(); {r}[:, 0], {r}[:, -1] = {r}[:, -1].clone(), {r}[:, 0].clone()
{r} = {a} if {a}.shape[0] > 8 else {b}
u = {a}.shape; {r} = {b}.reshape(u)
{r} = {a}.clone(); {r}.scatter_(-1, torch.zeros({a}.shape, dtype=torch.long), 0.5)
{r} = {a}.new_zeros({B}, {n}).add_({a}[:, :{n}])
{r} = {a}.clone(); {r}[:, 1:] += {r}[:, :-1].clone()
"""
)
HOSTILE = lines_of(
    r"""
{a} / {B}
{a} - {a}.mean(0)
{a}.flip(0)
{a}.cumsum(0)
{a}[0]
{a}[:1] + {b}
{a} + torch.randn_like({a})
{a} * {a}.shape[0]
{a}.roll(1)
{a}[torch.randperm({B})]
torch.cat([{a}, {b}], 0)[:{B}]
torch.cat([{a}, {b}], 0).chunk(2, 0)[1]
{a}.T @ {b}
{a}.float().double()
{a} @ {a}.T
{a} + torch.arange({B}, dtype={a}.dtype)[:, None]
F.softmax({a}, 0)
{a} * {a}.sum()
{a}.sort(-1).values
{a}.reshape({n}, {B}, -1)[0]
F.dropout({a}, 0.3)
F.dropout({a}, 0.3, training=False)
torch.bernoulli({a}.sigmoid())
{a}.reshape(-1, {B}).t()
{a}.transpose(0, 1).reshape({a}.shape)
{a}.t().reshape({B}, -1)
F.batch_norm({a}, None, None, training=True)
{a}.expand({B}, {B}, -1).sum(1)
{a}.topk(2).values
{a}.median(-1).values
torch.linalg.inv({a})
{a}.item()
{a} * (1 if {a}.sum() > 0 else 2)
torch.complex({a}, {b}).abs()
"""
)
