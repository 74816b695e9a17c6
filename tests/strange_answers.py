# ruff: noqa: E501
"""Wrong answers that no line of the catalogue was made for: one kind a line.

Each is flagged; most are told in words, and of every other one something can be said
that a learner can act on.
"""

# exercise: (how its answers begin, how each goes on); `…` where one begins otherwise.
_BODIES = {
    "batch_norm_forward": (
        "m = x.mean(0); v = x.var(0); s = np.sqrt(v + eps); xh = (x - m) / s",
        (
            "return gamma * xh * s + beta",
            "return gamma * xh - beta * m",
            "… m = x.mean(0); v = (x - m).mean(0) ** 2; return gamma * (x - m) / np.sqrt(v + eps) + beta",
            "… m = x.mean(0); v = ((x - m) ** 2).sum(0) / x.size; return gamma * (x - m) / np.sqrt(v + eps) + beta",
            "return gamma * np.clip(xh, -1, 1) + beta",
            "… m = np.median(x, 0); v = x.var(0); return gamma * (x - m) / np.sqrt(v + eps) + beta",
            "… m = x.mean(0); s = x.std(0); s = np.where(s < eps, 1, s); return gamma * (x - m) / s + beta",
            "return gamma * (x - m) / (v + eps) ** 0.25 + beta",
            "… m = x.mean(0); v = x.var(0); return gamma * x / np.sqrt(v + eps) - m + beta",
            "… m = x[:-1].mean(0); v = x.var(0); return gamma * (x - m) / np.sqrt(v + eps) + beta",
            "… lo = x.min(0); hi = x.max(0); return gamma * (x - x.mean(0)) / (hi - lo + eps) + beta",
            "return (gamma * xh + beta) * (x != 0)",
            "return gamma * xh + beta.mean()",
            "return gamma.mean() * xh + beta",
        ),
    ),
    "batch_norm_backward": (
        "m = x.mean(0); v = x.var(0); s = np.sqrt(v + eps); xh = (x - m) / s; g = gamma * dy; N = len(x)",
        (
            "dx = (g - g.mean(0) - xh * (g * xh).mean(0)) / v; return dx, (dy*xh).sum(0), dy.sum(0)",
            "dx = (g - g.mean(0) - xh * (dy * xh).mean(0)) / s; return dx, (dy*xh).sum(0), dy.sum(0)",
            "dx = (g - g.mean(0) + xh * (g * xh).mean(0)) / s; return dx, (dy*xh).sum(0), dy.sum(0)",
            "dvar = (g*(x-m)).sum(0) * -0.5 * (v+eps)**-1.5; dmu = -(g/s).sum(0); dx = g/s + dvar*2*(x-m) + dmu/N; return dx, (dy*xh).sum(0), dy.sum(0)",
            "dvar = (g*(x-m)).sum(0) * -0.5 * (v+eps)**-1.5; dmu = -(g/s).sum(0); dx = g/s + dvar*(x-m)/N + dmu/N; return dx, (dy*xh).sum(0), dy.sum(0)",
            "dvar = (g*(x-m)).sum(0) * -0.5 * (v+eps)**-0.5; dmu = -(g/s).sum(0); dx = g/s + dvar*2*(x-m)/N + dmu/N; return dx, (dy*xh).sum(0), dy.sum(0)",
            "dvar = (g*x).sum(0) * -0.5 * (v+eps)**-1.5; dmu = -(g/s).sum(0); dx = g/s + dvar*2*(x-m)/N + dmu/N; return dx, (dy*xh).sum(0), dy.sum(0)",
            "dx = gamma * dy / s; return dx, (dy*xh).sum(0), dy.sum(0)",
            "dx = (g - g.mean(0) - xh * (g * xh).mean(0)) / s; return dx, (dx*xh).sum(0), dx.sum(0)",
            "dx = (g - g.mean(0) - xh * (g * xh).mean(0)) / s; return dx, (dy*xh).sum(), dy.sum()",
            "dx = (g - g.mean(0) - xh * (g * xh).sum(0)) / s / N; return dx, (dy*xh).sum(0), dy.sum(0)",
            "dx = (N*g - g.sum(0) - xh * (g * xh).sum(0)) / s; return dx, (dy*xh).sum(0), dy.sum(0)",
        ),
    ),
    "update_running": (
        "pass",
        (
            "return running_mean*(1-momentum) + x.mean(0), running_var*(1-momentum) + x.var(0,ddof=1)",
            "return running_mean + momentum*(running_mean - x.mean(0)), running_var + momentum*(running_var - x.var(0,ddof=1))",
            "m = running_mean*(1-momentum)+momentum*x.mean(0); return m, m*(1-momentum)+momentum*x.var(0,ddof=1)",
            "return (running_mean + x.mean(0))/2, (running_var + x.var(0,ddof=1))/2",
            "return running_mean*(1-momentum)+momentum*x[-1], running_var*(1-momentum)+momentum*x.var(0,ddof=1)",
            "return running_mean*momentum**2+(1-momentum**2)*x.mean(0), running_var*(1-momentum)+momentum*x.var(0,ddof=1)",
        ),
    ),
    "batch_norm_inference": (
        "pass",
        (
            "return gamma*(x-running_mean)/np.sqrt(running_var+eps)+beta*running_mean",
            "return gamma*(x-running_mean)*np.sqrt(running_var+eps)+beta",
            "return gamma*(x-running_mean)/np.sqrt(running_var+eps+x.var(0))+beta",
            "return (x-running_mean)/np.sqrt(running_var+eps)*beta+gamma",
            "return gamma*(running_mean-x)/np.sqrt(running_var+eps)+beta",
            "return gamma*(x-running_mean)/np.sqrt(running_var-eps)+beta",
        ),
    ),
    "fold_linear": (
        "s=gamma/np.sqrt(var+eps)",
        (
            "return weight*s[:,None], bias*s+beta+mean*s",
            "return weight*s[:,None], bias*s+beta",
            "return weight*s[:,None], (bias-mean)*s*gamma+beta",
            "return weight/s[:,None], (bias-mean)*s+beta",
            "return weight*s[:,None]+beta[:,None], (bias-mean)*s",
            "return weight*s[:,None], (bias-mean+beta)*gamma/np.sqrt(var)",
        ),
    ),
    "conv_batch_norm": (
        "g=gamma.reshape(1,-1,1,1); b=beta.reshape(1,-1,1,1)",
        (
            "m=x.mean((0,2),keepdims=True); v=x.var((0,2,3),keepdims=True); return g*(x-m)/np.sqrt(v+eps)+b",
            "m=x.mean((2,3),keepdims=True).mean(0,keepdims=True); v=x.var((2,3),keepdims=True); return g*(x-m)/np.sqrt(v+eps)+b",
            "m=x.mean((0,2,3),keepdims=True); v=((x-m)**2).sum((0,2,3),keepdims=True)/x.shape[0]; return g*(x-m)/np.sqrt(v+eps)+b",
            "m=x.mean((0,2,3),keepdims=True); v=((x-m)**2).sum((0,2,3),keepdims=True)/(x.shape[2]*x.shape[3]); return g*(x-m)/np.sqrt(v+eps)+b",
            "m=x[0:1].mean((0,2,3),keepdims=True); v=x[0:1].var((0,2,3),keepdims=True); return g*(x-m)/np.sqrt(v+eps)+b",
        ),
    ),
    "layer_norm": (
        "m=x.mean(1,keepdims=True)",
        (
            "v=x.var(0); return gamma*(x-m)/np.sqrt(v+eps)+beta",
            "v=x.var(1,keepdims=True); return (gamma*(x-m)+beta)/np.sqrt(v+eps)",
            "v=(x**2).mean(1,keepdims=True)+m**2; return gamma*(x-m)/np.sqrt(v+eps)+beta",
            "… s=np.exp(x-x.max(1,keepdims=True)); return gamma*s/s.sum(1,keepdims=True)+beta",
        ),
    ),
    "group_norm": (
        "g=gamma.reshape(1,-1,1,1); b=beta.reshape(1,-1,1,1); n,c,h,w=x.shape",
        (
            "t=x.reshape(n,num_groups,-1); t=(t-t.mean(2,keepdims=True))/np.sqrt(t.var(2,keepdims=True)+eps); return t.reshape(x.shape)*g*b",
            "t=x.reshape(n,num_groups,c//num_groups,h,w); t=(t-t.mean((2,3),keepdims=True))/np.sqrt(t.var((2,3),keepdims=True)+eps); return t.reshape(x.shape)*g+b",
            "t=x.reshape(n*num_groups,-1); t=(t-t.mean(0,keepdims=True))/np.sqrt(t.var(0,keepdims=True)+eps); return t.reshape(x.shape)*g+b",
        ),
    ),
    "rms_norm": (
        "pass",
        (
            "return gamma*x/np.sqrt((x**2).mean()+eps)",
            "return gamma*x/np.sqrt((x**2).mean(0)+eps)",
            "return gamma*x*np.sqrt((x**2).mean(1,keepdims=True))/((x**2).mean(1,keepdims=True)+eps)",
        ),
    ),
    "merge_moments": (
        "t=counts.sum(); c=counts[:,None]; m=(c*means).sum(0)/t",
        (
            "return m, (c*variances).sum(0)/t+((means-m)**2).sum(0)",
            "return m, (c*variances).sum(0)/t+(c*(means-m)**2).sum(0)/t*2",
            "return m, (c**2*variances).sum(0)/t**2",
        ),
    ),
    "zca_whiten": (
        "c=x-x.mean(0)",
        (
            "S=c.T@c/len(x); l,V=np.linalg.eigh(S); return c@V@np.diag(l+eps)@V.T",
            "… c=(x-x.mean(0))/x.std(0).clip(1e-9); S=c.T@c/len(x); l,V=np.linalg.eigh(S); return c@V@np.diag((l+eps)**-.5)@V.T",
            "S=c.T@c/len(x)+eps; l,V=np.linalg.eigh(S); return c@V@np.diag(abs(l)**-.5)@V.T",
        ),
    ),
    "batch_renorm": (
        "m=x.mean(0); s=np.sqrt(x.var(0)+eps); xh=(x-m)/s",
        (
            "r=np.clip(s/running_std,1/rmax,rmax); d=np.clip((m-running_mean)/running_std,-dmax,dmax); return gamma*(xh/r+d)+beta",
            "r=np.clip(s/running_std,1/rmax,rmax); d=np.clip((m-running_mean)/running_std,-dmax,dmax); return gamma*(xh*r-d)+beta",
            "r=np.clip(s/running_std,1/rmax,rmax); d=np.clip((m-running_mean)/running_std,-dmax,dmax); return gamma*(xh*r)+d+beta",
            "r=np.clip(s/running_std,0,rmax); d=np.clip((m-running_mean)/running_std,-dmax,dmax); return gamma*(xh*r+d)+beta",
            "r=np.clip(s/(running_std+eps),1/rmax,rmax); d=np.clip((m-running_mean)/(running_std+eps),-dmax,dmax); return gamma*(xh*r+d)+beta",
        ),
    ),
}

STRANGE = [
    (name, end.removeprefix("… ") if end[0] == "…" else f"{head}\n{end}")
    for name, (head, ends) in _BODIES.items()
    for end in ends
]
