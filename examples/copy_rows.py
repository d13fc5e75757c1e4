"""Copy the CSV files of one directory to another, row by row.

spark-submit copy_rows.py INPUT OUTPUT
"""

import sys

from pyspark.sql import SparkSession

spark = SparkSession.builder.appName("copy-rows").getOrCreate()
spark.read.csv(sys.argv[1], header=True).write.csv(sys.argv[2], header=True)
spark.stop()
