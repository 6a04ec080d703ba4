import pytest

from eval.inspect import tries


def test_what_is_solved_within_k_tries_by_hand():
    row = {
        "network": "before",
        "voice": "free",
        "n": 256,
        "values": 100,
        "right": [256, 128, 1, 0],
        "sound": [256, 0, 0, 0],
    }
    table = tries.table([row])
    right, sound = ({point["k"]: point["estimate"] for point in each["curve"]} for each in table["curves"])
    assert right[1] == pytest.approx((1 + 0.5 + 1 / 256) / 4, abs=1e-6)
    assert right[256] == 0.75 and sound[256] == 0.25
    assert [each["never"] for each in table["curves"]] == [1, 3]
    assert table["guess"][-1]["estimate"] == pytest.approx(1 - 0.99**256)
