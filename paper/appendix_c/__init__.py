"""Appendix C: the analytical model, every formula as printed and as it should read.

`surrogate` has the stationary points (eqs. 1 to 5) and `landscape` all the others; `response`
what an attack does to them (6 to 10); `resolvent` the random-matrix estimate of the Jacobian
(11 to 13); `networks` what trained networks say to all that; `proofs` the derivations (they
need sympy); `errata` what does not follow; `verdicts` what becomes of the claims. Nothing here
needs torch.
"""
