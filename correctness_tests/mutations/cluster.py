"""Mutants of the pool of workers and of `Scorer`."""

# fmt: off
ROWS = (
    "test_share.py::test_each_gpu_or_group_of_cores_has_a_worker",
    ("workers without a GPU", "share_of", "min(cores // cpus, of)", "cores // cpus"),
    ("a worker takes the cores of all GPUs", "share_of", "cores // (of if gpus else 1)", "cores"),
    "test_pool.py::test_a_worker_that_dies_is_replaced_and_the_output_is_that_of_one_process",
    ("the first death condemns a chunk", "MOST_DEATHS", "3", "1"),
    "test_pool.py::test_a_chunk_beside_the_one_at_fault_is_scored",
    ("a suspect shares its next worker", "_Worker.takes",
     "if job.deaths or any(each.deaths for each in self.jobs):", "if False:"),
    "test_pool.py::test_a_worker_has_few_chunks_at_a_time_and_little_is_read_ahead",
    ("a file is read as fast as it can be", "Pool.__init__", "AHEAD * share.workers", "10**6"),
    ("a worker has all chunks at once", "_Worker.takes", "len(self.jobs) < IN_FLIGHT", "True"),
    "test_pool.py::test_an_error_of_loading_is_the_commands_own",
    ("an error comes with Ray's traceback", "Pool._took", "raise error.cause from None", "raise"),
    "test_pool.py::test_on_standard_output_there_are_records_and_nothing_of_ray",
    ("Ray prints among the records", "connected", "redirect_stdout(sys.stderr)", "suppress()"),
    "test_scorer.py::test_a_dictionary_keeps_its_columns_and_only_pairs_at_fault_have_no_score",
    ("scores behind a bad pair move up", "Scorer._scored", "scores[places[place]] = score",
     "scores[place] = score"),
    "test_scorer.py::test_threads_are_those_asked_for",
    ("every actor takes all cores", "Scorer.__init__", "use_cores(cores)", "pass"),
    "test_cold_start.py::test_what_saves_at_once_leaves_one_whole_file",
    ("processes write one file at once", "save_graphs", "{uuid4().hex}", "partial"),
)
# fmt: on
