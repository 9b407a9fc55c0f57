"""
Scoring on Spark
================

Each Python worker of Spark loads the detector once and scores batches of rows.

The rows come as a Parquet table. Its column ``x`` has an array of numbers in each row,
and images are flattened. Other columns are copied. The table that is written has a
column ``score`` instead of ``x``. You need Java 17::

    pip install -e ".[engines]" pyspark
    python examples/score_with_spark.py detector.safetensors rows.parquet scores.parquet

Spark runs in processes on this machine. ``--master ADDRESS`` uses a cluster, whose
workers must see the same files.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from pyspark.ml.functions import predict_batch_udf
from pyspark.sql import SparkSession
from pyspark.sql.types import DoubleType

import skvmdls

BATCH = 4096


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("detector", type=Path)
    parser.add_argument("rows", type=Path, help="Parquet table with the column x")
    parser.add_argument("scores", type=Path, help="Parquet table to write")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--master", help="of a cluster that is there")
    options = parser.parse_args()
    path = options.detector.absolute()
    n_features = skvmdls.load(path).n_features_in_

    def scorer() -> Callable[[np.ndarray], np.ndarray]:
        """Make the function for batches, once in each worker."""
        detector = skvmdls.load(path)
        shape = (-1, *detector.input_shape_)
        # Spark has no unsigned bytes, so those of images come as wider numbers.
        were_bytes = detector.standardizer_.were_bytes_
        return lambda x: detector.score_samples(
            (x.astype(np.uint8) if were_bytes else x).reshape(shape)
        )

    score = predict_batch_udf(
        scorer,
        return_type=DoubleType(),
        batch_size=BATCH,
        input_tensor_shapes=[[n_features]],
    )
    master = options.master or f"local[{options.workers}]"
    spark = SparkSession.builder.master(master).appName("score").getOrCreate()
    rows = spark.read.parquet(str(options.rows.absolute()))
    start = time.perf_counter()
    scored = rows.withColumn("score", score("x")).drop("x")
    scored.write.mode("overwrite").parquet(str(options.scores.absolute()))
    seconds = time.perf_counter() - start
    print(f"{rows.count()} rows in {seconds:.2f} s")
    spark.stop()


if __name__ == "__main__":
    main()
