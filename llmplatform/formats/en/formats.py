"""English. Month and day in figures mean different things to different readers; this order means one."""

SHORT_DATE_FORMAT = "Y-m-d"
SHORT_DATETIME_FORMAT = "Y-m-d H:i"
