"""Tokens: the fencing number of a lease.

A token is `epoch << 32 | claim_seq`. Both parts live in the job record: the epoch rises with every placement on an
agent, `claim_seq` with every claim. So tokens of one job strictly increase across agents, and no store clock or
stream sequence, which may rewind, takes part.
"""

_SEQ_BITS = 32
_SEQ_MASK = (1 << _SEQ_BITS) - 1


def make_token(epoch: int, claim_seq: int) -> int:
    """The token of the `claim_seq`-th claim in this epoch; fits a signed 64-bit integer."""
    assert 0 < epoch < 1 << 31, epoch
    assert 0 < claim_seq <= _SEQ_MASK, claim_seq
    return epoch << _SEQ_BITS | claim_seq


def token_epoch(token: int) -> int:
    """The epoch a token was granted in."""
    return token >> _SEQ_BITS


def token_claim_seq(token: int) -> int:
    """The number of the claim a token was granted by."""
    return token & _SEQ_MASK
