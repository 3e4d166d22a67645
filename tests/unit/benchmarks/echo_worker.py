"""A worker for test_shared.py: it answers an order with what it was told to begin with, and ends when asked to."""

from benchmarks.workers import serve


def prepare(settings):
    def answer(order):
        if order.get("end"):
            raise SystemExit("the last words")
        print("what libraries print goes to the log")
        return {**settings, **order}

    return answer


if __name__ == "__main__":
    serve(prepare)
