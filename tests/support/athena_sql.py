"""SQL with the same meaning on Athena and here, as checked on a Trino server; and SQL that may differ."""

from __future__ import annotations

_T = "machine_learning_curated"

SAME = (
    "select count(*) as n from customers_landing",
    f"select customer_id, count(*) as n, min(sensorReadingTime) as a, max(sensorReadingTime) as b, sum(x) as x,"
    f" avg(distanceFromObject) as d from {_T} group by customer_id having count(*) > 1 order by customer_id",
    "select date_trunc('day', sensorReadingTime) as d, count(*) as n from step_trainer_trusted group by 1 order by 1",
    "with a as (select customer_id, birthDay, shareWithResearchAsOfDate as s from customers_trusted)"
    " select birthDay, count(*) filter (where s is not null) as n from a group by 1 order by 1 nulls last",
    "select feed, reason, count(*) as n from quarantine group by feed, reason order by n desc, feed, reason",
    f"select distanceFromObject // 7 as a, distanceFromObject / 7 as b, distanceFromObject % 7 as c, -7 // 2 as d,"
    f" -7 % 3 as e, distanceFromObject * 2 + 1 - 3 as f from {_T} order by 1, 2, 3 limit 5",
    f"select stddev(x) as b, var_pop(y) as c, corr(x, y) as d from {_T}",
    f"select approx_count_distinct(customer_id) >= 1 as a from {_T}",
    f"select sensorReadingTime::date as d, extract(hour from sensorReadingTime) as h, count(*) as n from {_T}"
    " group by 1, 2 order by 1, 2",
    f"select date_diff('second', min(sensorReadingTime), max(sensorReadingTime)) as s from {_T}",
    f"select min(sensorReadingTime) + interval 1 hour as s from {_T}",
    f"select count(*) as n from {_T} where sensorReadingTime >= timestamp '2022-06-18 15:42:00'",
    f"select count(*) as n from {_T} where sensorReadingTime >= '2022-06-18 15:42:00+00'::timestamptz and x in (0, 1)"
    " and not (y < 0 or z <= -1) and distanceFromObject between 200 and 300 and x <> 2 and y = 1",
    f"select substr(customer_id, 1, 4) as a, left(customer_id, 3) as c, length(customer_id) as d,"
    f" upper(customer_id) as u, lower(customer_id) || '!' as l, trim(' a ') as t from {_T} order by 1, 2, 3, 4 limit 3",
    f"select count(*) as n from {_T} m where exists (select 1 from customers_trusted c"
    " where c.customer_id = m.customer_id)",
    f"select count(*) as n from customers_trusted where customer_id not in (select customer_id from {_T})",
    f"select count_if(x > 0) as a, sum(case when x > 0 then 1 else 0 end) as b from {_T}",
    f"select regexp_matches(customer_id, '^[0-4]') as m, count(*) as n from {_T} group by 1 order by 1",
    "select birthDay, count(*) as n from customers_trusted group by 1 order by 1 desc limit 3",
    "select phone from customers_trusted order by phone desc limit 3 offset 1",
    f"select lag(distanceFromObject) over (partition by customer_id order by sensorReadingTime, x, y, z) as l,"
    f" row_number() over (partition by customer_id order by sensorReadingTime, x, y, z) as r, customer_id,"
    f" sensorReadingTime as t from {_T} order by customer_id, sensorReadingTime, x, y, z limit 5",
    f"select round(avg(x), 2) as a, coalesce(null, 4) as f, abs(-3) as g, nullif(1, 2) as h from {_T}",
    f"select sum(distanceFromObject) as s, count(distinct customer_id) as n from {_T}",
    f"select list(x order by x) as l from (select distinct x from {_T})",
    f"select t.n from (select count(*) as n from {_T}) t",
    f"select c.birthDay as b, count(*) as n from {_T} m join customers_trusted c on c.customer_id = m.customer_id"
    " left join customers_curated d on d.customer_id = c.customer_id group by 1 order by 1 nulls last",
    "select serialNumber from customers_trusted union all select serialNumber from step_trainer_trusted"
    " order by 1 limit 3",
    "select customer_id from customers_trusted except select customer_id from customers_curated order by 1",
    "select customer_id from customers_trusted intersect select customer_id from customers_curated order by 1",
    "select count(*) as n from accelerometer_landing where user like 'a%' or user ilike 'B%'",
    f"from {_T} select count(*) as n",
    f"select sum(x) over (partition by customer_id order by sensorReadingTime, x, y, z rows between 1 preceding and"
    f" current row) as s, customer_id, try_cast('a' as int) as c from {_T} order by 2, 1 limit 4",
    f"select * from {_T} order by 1, 2, 3, 4, 5, 6 limit 3",
)
"""Each returns the same rows on Athena, in the same order."""

OTHER = (
    ("select customer_id, row_number() over (partition by customer_id order by x) as r"
     f" from {_T} qualify r = 1 order by 1", "rows without their order"),
    (f"select distinct on (customer_id) customer_id, x from {_T} order by customer_id, x", "rows without their order"),
    (f"select count(*) as n from customers_trusted anti join {_T} using (customer_id)", "an inner join"),
    (f"select count(*) as n from {_T} semi join customers_trusted using (customer_id)", "an inner join"),
    (f"select greatest(1, null) as a, least(2, null) as b from {_T}", "null where one is null"),
    ("select _extra ->> 'firmware' as f from accelerometer_landing", "null where the value is an object"),
    ("select feed, count(*) as n from quarantine group by all", "an error"),
    (f"select median(x) as m from {_T}", "an error"),
    (f"select * exclude (customer_id) from {_T}", "an error"),
    ("select epoch_ms(sensorReadingTime) as e from step_trainer_trusted", "an error"),
    (f"select customer_id[1:4] as b from {_T}", "an error"),
    (f"select time_bucket(interval '1 hour', sensorReadingTime) as b from {_T}", "an error"),
    (f"select string_agg(distinct x::int, ',' order by x::int) as s from {_T}", "an error"),
    (f"select count(*) as n from {_T} using sample 10 rows", "an error"),
    (f"select mode(x) as m from {_T}", "an error"),
    (f"select hash(1) as h from {_T}", "an error"),
)  # fmt: skip
"""Each is refused; the text says what Athena, or Trino inside it, does with it, as seen on a server."""
