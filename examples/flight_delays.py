"""Which flights out of New York are late, and why: an ordinary PySpark program.

    spark-submit flight_delays.py INPUT OUTPUT

INPUT holds flights.csv, airlines.csv, planes.csv and weather.csv. OUTPUT gets three tables: delays by carrier and
part of the day (Parquet), the twenty most delayed aircraft (CSV) and the coefficients of a linear model (CSV).
"""

import sys

from pyspark import StorageLevel
from pyspark.ml.feature import VectorAssembler
from pyspark.ml.regression import LinearRegression
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

FLIGHTS = (
    "year INT, month INT, day INT, dep_time INT, sched_dep_time INT, dep_delay INT, arr_time INT, sched_arr_time INT, "
    "arr_delay INT, carrier STRING, flight INT, tailnum STRING, origin STRING, dest STRING, air_time INT, "
    "distance INT, hour INT, minute INT, time_hour STRING"
)


def part_of_day(hour):
    if hour < 6:
        return "night"
    return ["morning", "afternoon", "evening"][min((hour - 6) // 6, 2)]


def registry(tailnum):
    """Aircraft registered in the United States carry an N; anything else is worth a look."""
    return "US" if tailnum.startswith("N") else f"other:{tailnum}"


def main(source: str, target: str) -> None:
    spark = SparkSession.builder.appName("flight-delays").getOrCreate()

    def table(name, schema=None):
        return spark.read.csv(
            f"{source}/{name}.csv", header=True, nullValue="NA", schema=schema, inferSchema=not schema
        )

    flights = table("flights", FLIGHTS).withColumn("part_of_day", F.udf(part_of_day, "string")("hour"))
    weather = (
        table("weather")
        .select("origin", "month", "day", "hour", "wind_speed", "visib")
        .dropDuplicates(["origin", "month", "day", "hour"])
    )

    by_carrier = (
        flights.join(F.broadcast(table("airlines")), "carrier")
        .groupBy("name", "part_of_day")
        .agg(
            F.count("*").alias("flights"),
            F.sum(F.col("dep_time").isNull().cast("int")).alias("cancelled"),
            F.round(F.avg("dep_delay"), 3).alias("mean_departure_delay"),
        )
    )
    by_carrier.write.mode("overwrite").parquet(f"{target}/by_carrier")

    aircraft = (
        flights.where("tailnum IS NOT NULL AND arr_delay IS NOT NULL")
        .repartition(8, "tailnum")
        .withColumn("registry", F.udf(registry, "string")("tailnum"))
        .persist(StorageLevel.DISK_ONLY)
    )
    (
        aircraft.groupBy("tailnum", "registry")
        .agg(F.sum("arr_delay").alias("minutes_late"), F.count("*").alias("flights"))
        .join(table("planes").select("tailnum", "manufacturer", "model"), "tailnum", "left")
        .orderBy(F.desc("minutes_late"), "tailnum")
        .limit(20)
        .coalesce(1)
        .write.mode("overwrite")
        .csv(f"{target}/most_delayed", header=True)
    )

    observed = aircraft.join(weather, ["origin", "month", "day", "hour"]).dropna(subset=["wind_speed", "visib"])
    features = VectorAssembler(inputCols=["dep_delay", "distance", "wind_speed", "visib"], outputCol="features")
    model = LinearRegression(labelCol="arr_delay", solver="normal").fit(features.transform(observed))
    rows = [(n, round(float(c), 5)) for n, c in zip(features.getInputCols(), model.coefficients, strict=True)]
    rows.append(("intercept", round(float(model.intercept), 4)))
    spark.createDataFrame(rows, "term STRING, coefficient DOUBLE").coalesce(1).write.mode("overwrite").csv(
        f"{target}/model", header=True
    )

    print(
        f"flights: {flights.count()}, with an arrival and a tail number: {aircraft.count()}, r2: {model.summary.r2:.4f}"
    )
    spark.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
