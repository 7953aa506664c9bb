// Package schedule starts runs by the clock. Its expressions are those of EventBridge: cron(…), rate(…) and at(…), in an IANA
// time zone.
//
//	cron(minutes hours day-of-month month day-of-week year)
//
// has six fields: lists, ranges and steps (0/15, 1-5, MON-FRI), L and W for the day of the month (the last day, 15W the weekday
// nearest to the 15th, LW the last weekday), L and # for the day of the week (6L the last Friday, 3#2 the second
// Tuesday); weekdays go from 1 (SUN) to 7 (SAT), years from 1970 to 2199. Exactly one of the two day fields is "?". A local
// time that a change of the clocks leaves out does not fire, one that it repeats fires the first time only. rate(…) counts
// hours of 60 minutes and days of 24 hours from the start of the schedule, which fires too; without a start that is when the
// expression was given. at(yyyy-mm-ddThh:mm:ss) fires once.
//
// A schedule is one record, due in the sweep at its next firing. A firing starts its run by package run, with an idempotency
// key made of the schedule and its nominal time, and only then the record moves on to the next firing: so a sweeper
// may die anywhere, and several may work at once, and each firing starts one run. A firing that cannot start is kept with
// its reason instead, and is not tried again; only when nothing is known of how it went does it stay due.
//
// How exactly a firing is on time is up to the sweep: within the minute on AWS, within a second at home. What is more than
// two minutes late was missed, because nobody swept, and the schedule's CatchUp says what becomes of it: "skip" drops it;
// "once" makes one run for all that was missed, unless one is on time anyway; "all" makes a run for each, the newest 100 at
// most. While a schedule is paused nothing is missed.
//
// Records: "SCHED#<deployment>" / <schedule> (blob; due index).
package schedule
