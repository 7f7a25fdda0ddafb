"""What a worker is given: a GPU and the cores that feed it, or a group of cores."""

from __future__ import annotations

import pytest

from xenc.cluster import ClusterError, Share, share_of

SMALL, LARGE = {"CPU": 2.0}, {"CPU": 16.0, "memory": 1e9}
GPUS = {"CPU": 16.0, "GPU": 2.0}
CROWDED = {"CPU": 8.0, "GPU": 8.0}


@pytest.mark.parametrize(
    ("nodes", "asked", "share"),
    [
        ([LARGE], {}, Share(4, 4, 0)),
        ([SMALL, LARGE], {}, Share(9, 2, 0)),
        ([SMALL], {"cpus": 1}, Share(2, 1, 0)),
        ([LARGE], {"workers": 3}, Share(3, 4, 0)),
        ([GPUS], {}, Share(2, 4, 1)),
        ([GPUS, CROWDED], {}, Share(10, 1, 1)),
        ([GPUS, SMALL], {"cpus": 8}, Share(2, 8, 1)),
        ([GPUS], {"device": "cpu"}, Share(4, 4, 0)),
        ([GPUS], {"device": "cuda"}, Share(2, 4, 1)),
        ([], {"workers": 2, "cpus": 2}, Share(2, 2, 0)),
        ([{}, LARGE], {}, Share(4, 4, 0)),
    ],
)
def test_each_gpu_or_group_of_cores_has_a_worker(nodes, asked, share):
    assert share_of(nodes, **{"workers": None, "cpus": None, "device": None} | asked) == share


@pytest.mark.parametrize(
    ("nodes", "asked"), [([], {}), ([SMALL], {"cpus": 3}), ([LARGE], {"device": "cuda:0"})]
)
def test_a_cluster_without_room_for_a_worker_is_refused(nodes, asked):
    with pytest.raises(ClusterError, match=r"no machine of the cluster has .* CPUs.*Ask for less"):
        share_of(nodes, **{"workers": None, "cpus": None, "device": None} | asked)
