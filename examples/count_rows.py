"""Count the rows of the CSV files in a directory: the smallest PySpark program.

spark-submit count_rows.py INPUT
"""

import sys

from pyspark.sql import SparkSession

spark = SparkSession.builder.appName("count-rows").getOrCreate()
print(f"rows: {spark.read.csv(sys.argv[1], header=True).count()}")
spark.stop()
