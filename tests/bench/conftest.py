"""Options of the benchmarks."""


def pytest_addoption(parser):
    parser.addoption("--replica", help="clone of the public package to run beside the kernels")
    parser.addoption("--replica-python", help="interpreter of its environment")
    parser.addoption(
        "--correlated", help="clone of awakhloo/correlated_capacity, beside simulation"
    )
