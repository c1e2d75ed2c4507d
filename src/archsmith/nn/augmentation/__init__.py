"""Augmentation policies on whole batches of bytes (Cubuk et al. 2019, "AutoAugment: Learning Augmentation Policies from Data").

`policy` says what a policy is, as plain data and without torch; `operations` computes the 16 operations, equal to Pillow's
to the bit, by `native` or by torch (`geometry`, `colour`); `module` is the transform.
"""
