"""Guaranteed bounds of a network's gradient over a ball, rounding included.

Affine forms (:mod:`.affine`) are carried through the network and back again (:mod:`.gradient`);
activations are enclosed between two parallel lines (:mod:`.activations`, :mod:`.curves`).
"""
