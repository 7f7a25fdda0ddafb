"""The small ways in which `mutants` breaks what runs on CUDA, and the laws that notice without a GPU."""

from __future__ import annotations

from correctness_tests.mutations import mutant

TRACED = "test_cuda_traced.py"
ONE_GRAPH = f"{TRACED}::test_packed_batches_of_all_sizes_are_one_graph_that_a_cuda_graph_can_hold"
KERNEL = f"{TRACED}::test_the_cuda_kernel_answers_as_the_operator_says_and_waits_for_nothing"
AFTER_PREFIX = f"{TRACED}::test_after_a_prefix_it_does_so_too"
BATCHES = f"{TRACED}::test_batches_stand_on_the_device_in_the_shapes_and_dtypes_that_the_forward_takes"
PINNED = "test_pinned_ring.py"

CUDA_MUTANTS = (
    mutant(
        "targets on the CPU",
        "encoder_decoder/forward.py",
        "torch.tensor(values, dtype=torch.int64, device=device)",
        "torch.tensor(values, dtype=torch.int64)",
        f"{TRACED}::test_the_first_step_of_a_decoder_is_one_graph_that_a_cuda_graph_can_hold",
    ),
    mutant(
        "token types left on the host",
        "collate.py",
        "types = self._to_device(_scatter(real, row_types, fill=0))",
        "types = _scatter(real, row_types, fill=0)",
        BATCHES,
    ),
    mutant("starts in 64 bits", "packed_collate.py", "batch.slots :].int()", "batch.slots :]", BATCHES),
    mutant(
        "a graph for each bucket",
        "compiled.py",
        "dynamic=execution.dynamic",
        "dynamic=False",
        f"{TRACED}::test_padded_batches_of_all_buckets_are_one_graph_that_a_cuda_graph_can_hold",
    ),
    mutant(
        "floats are inputs",
        "compiled.py",
        '"specialize_float": True',
        '"specialize_float": False',
        f"{ONE_GRAPH}[qwen3]",
    ),
    mutant(
        "the batch is written to",
        "forward.py",
        '"input_ids": input_ids[None]',
        '"input_ids": input_ids.clamp_(min=0)[None]',
        ONE_GRAPH,
    ),
    mutant(
        "pooled on the host",
        "forward.py",
        "hidden[pooled]",
        "torch.stack([hidden[at] for at in pooled[:4].tolist()])",
        ONE_GRAPH,
    ),
    mutant(
        "attention beside the operator",
        "attention.py",
        "if starts is None:",
        "if True:",
        f"{ONE_GRAPH}[bert]",
    ),
    mutant("flash answers in float32", "attention.py", "return flash", "return flash.float()", KERNEL),
    mutant(
        "flash answers by head",
        "attention.py",
        "return flash",
        "return flash.transpose(0, 1).contiguous().transpose(0, 1)",
        KERNEL,
    ),
    mutant("efficient answers a batch", "attention.py", "return efficient[0]", "return efficient", KERNEL),
    mutant(
        "a kernel waits for the longest",
        "attention.py",
        "flash: Tensor = torch",
        "max_tokens = int(starts.diff().max())\n        flash: Tensor = torch",
        KERNEL,
    ),
    mutant(
        "after a prefix it waits for its length",
        "prefix/attention.py",
        "masked_fill(prefix_starts[1] == 0, -torch.inf)",
        "masked_fill(torch.tensor(int(prefix_starts[1]) == 0), -torch.inf)",
        AFTER_PREFIX,
    ),
    mutant(
        "after a prefix in float32", "prefix/attention.py", "weight).to(own.dtype)", "weight)", AFTER_PREFIX
    ),
    mutant(
        "a product left in sixteen bits",
        "quantize.py",
        "for layer in encoder_layers(self._original))",
        "for layer in encoder_layers(self._original)[1:])",
        f"{TRACED}::test_every_product_of_a_quantised_encoder_is_one_in_eight_bits",
    ),
    mutant(
        "a pinned buffer written too soon",
        "packed_collate.py",
        "            copied.synchronize()\n",
        "            pass\n",
        PINNED,
    ),
    mutant(
        "a pinned buffer waited for at once",
        "packed_collate.py",
        "        self._stages.append((pinned, copied))",
        "        copied.synchronize()\n        self._stages.append((pinned, copied))",
        PINNED,
    ),
)
