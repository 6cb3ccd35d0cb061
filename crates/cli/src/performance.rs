//! Figures of a load: counts, bytes and latencies, as Kafka's performance tools compute and print them. Pure: time comes
//! in as milliseconds.

/// What was acknowledged, over the whole run and since the last report.
#[derive(Debug)]
pub struct ProducerFigures {
    name: &'static str,
    start_ms: u64,
    window_start_ms: u64,
    interval_ms: u64,
    /// Every so many records one latency is kept.
    sampling: u64,
    latencies: Vec<u32>,
    total: Sum,
    window: Sum,
}

#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    count: u64,
    bytes: u64,
    latency_ms: u64,
    max_latency_ms: u64,
}

impl Sum {
    fn add(&mut self, bytes: u64, latency_ms: u64) {
        self.count += 1;
        self.bytes += bytes;
        self.latency_ms += latency_ms;
        self.max_latency_ms = self.max_latency_ms.max(latency_ms);
    }

    fn mean_ms(&self) -> f64 {
        self.latency_ms as f64 / self.count as f64
    }
}

/// As many latencies as are kept of one run.
const MOST_LATENCIES: u64 = 500_000;

const MEGABYTE: f64 = 1024.0 * 1024.0;

impl ProducerFigures {
    /// `name` stands after the count: nothing, or " steady state".
    #[must_use]
    pub fn new(name: &'static str, records: u64, interval_ms: u64, now_ms: u64) -> Self {
        Self {
            name,
            start_ms: now_ms,
            window_start_ms: now_ms,
            interval_ms,
            sampling: (records / MOST_LATENCIES).max(1),
            latencies: Vec::new(),
            total: Sum::default(),
            window: Sum::default(),
        }
    }

    /// Counts an acknowledged record; returns a line to print if it is time for one.
    pub fn record(&mut self, bytes: u64, latency_ms: u64, now_ms: u64) -> Option<String> {
        if self.total.count.is_multiple_of(self.sampling) {
            self.latencies.push(u32::try_from(latency_ms).unwrap_or(u32::MAX));
        }
        self.total.add(bytes, latency_ms);
        self.window.add(bytes, latency_ms);
        if now_ms.saturating_sub(self.window_start_ms) < self.interval_ms {
            return None;
        }
        let window = std::mem::take(&mut self.window);
        let (rate, megabytes) = rates(&window, now_ms - self.window_start_ms);
        self.window_start_ms = now_ms;
        Some(format!(
            "{}{} records sent, {rate:.1} records/sec ({megabytes:.2} MB/sec), {:.1} ms avg latency, {:.1} ms max latency.",
            window.count,
            self.name,
            window.mean_ms(),
            window.max_latency_ms as f64
        ))
    }

    /// The line at the end.
    #[must_use]
    pub fn summary(mut self, now_ms: u64) -> String {
        let (rate, megabytes) = rates(&self.total, now_ms.saturating_sub(self.start_ms));
        self.latencies.sort_unstable();
        let at = |fraction: f64| {
            let index = (fraction * self.latencies.len() as f64) as usize;
            self.latencies.get(index).copied().unwrap_or(0)
        };
        format!(
            "{}{} records sent, {rate:.6} records/sec ({megabytes:.2} MB/sec), {:.2} ms avg latency, {:.2} ms max latency, \
             {} ms 50th, {} ms 95th, {} ms 99th, {} ms 99.9th.",
            self.total.count,
            self.name,
            if self.total.count == 0 { 0.0 } else { self.total.mean_ms() },
            self.total.max_latency_ms as f64,
            at(0.5),
            at(0.95),
            at(0.99),
            at(0.999),
        )
    }
}

/// Records and megabytes a second.
fn rates(sum: &Sum, elapsed_ms: u64) -> (f64, f64) {
    let elapsed_ms = elapsed_ms.max(1) as f64;
    (1000.0 * sum.count as f64 / elapsed_ms, 1000.0 * sum.bytes as f64 / elapsed_ms / MEGABYTE)
}

/// What was consumed.
#[derive(Clone, Copy, Debug, Default)]
pub struct ConsumerFigures {
    pub records: u64,
    pub bytes: u64,
}

/// The columns of [`ConsumerFigures::row`].
pub const CONSUMER_COLUMNS: &str = "data.consumed.in.MB, MB.sec, data.consumed.in.nMsg, nMsg.sec, rebalance.time.ms, \
                                    fetch.time.ms, fetch.MB.sec, fetch.nMsg.sec";

impl ConsumerFigures {
    /// From `before` to now, in `elapsed_ms`, of which rebalances took `rebalance_ms`. Totals are over everything.
    #[must_use]
    pub fn row(&self, before: &Self, elapsed_ms: u64, rebalance_ms: u64) -> String {
        let megabytes = self.bytes as f64 / MEGABYTE;
        let (new_records, new_megabytes) =
            ((self.records - before.records) as f64, (self.bytes - before.bytes) as f64 / MEGABYTE);
        let fetch_ms = elapsed_ms.saturating_sub(rebalance_ms);
        let per_second = |amount: f64, milliseconds: u64| match milliseconds {
            0 => 0.0,
            milliseconds => amount * 1000.0 / milliseconds as f64,
        };
        format!(
            "{megabytes:.4}, {:.4}, {}, {:.4}, {rebalance_ms}, {fetch_ms}, {:.4}, {:.4}",
            per_second(new_megabytes, elapsed_ms),
            self.records,
            per_second(new_records, elapsed_ms),
            per_second(new_megabytes, fetch_ms),
            per_second(new_records, fetch_ms),
        )
    }
}

/// How long to wait so that no more than `per_second` are sent.
#[must_use]
pub fn throttle_ms(sent: u64, per_second: f64, elapsed_ms: u64) -> u64 {
    if per_second <= 0.0 {
        return 0;
    }
    let due_ms = sent as f64 * 1000.0 / per_second;
    (due_ms - elapsed_ms as f64).max(0.0) as u64
}

/// A moment as `yyyy-MM-dd HH:mm:ss:SSS`, in UTC, from milliseconds since 1970.
#[must_use]
pub fn date_time(ms: i64) -> String {
    let (days, ms) = (ms.div_euclid(86_400_000), ms.rem_euclid(86_400_000));
    // Howard Hinnant's `civil_from_days`: years begin in March, eras have 400 of them.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let (month, year) =
        if month < 10 { (month + 3, year_of_era + era * 400) } else { (month - 9, year_of_era + era * 400 + 1) };
    let (hour, minute, second) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1_000 % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}:{:03}", ms % 1_000)
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn a_window_is_reported_when_it_is_over_and_the_rest_in_the_summary() {
        let mut figures = ProducerFigures::new("", 4, 1_000, 0);
        assert_eq!(figures.record(1024 * 1024, 10, 500), None);
        expect!["2 records sent, 2.0 records/sec (2.00 MB/sec), 20.0 ms avg latency, 30.0 ms max latency."]
            .assert_eq(&figures.record(1024 * 1024, 30, 1_000).expect("a second is over"));
        assert_eq!(figures.record(1024 * 1024, 5, 1_500), None);
        assert_eq!(figures.record(1024 * 1024, 7, 1_900), None);
        expect!["4 records sent, 2.000000 records/sec (2.00 MB/sec), 13.00 ms avg latency, 30.00 ms max latency, 10 ms 50th, 30 ms 95th, 30 ms 99th, 30 ms 99.9th."]
            .assert_eq(&figures.summary(2_000));
    }

    #[test]
    fn consumers_count_fetching_apart_from_rebalancing() {
        let figures = ConsumerFigures { records: 1_000, bytes: 10 * 1024 * 1024 };
        expect!["10.0000, 5.0000, 1000, 500.0000, 1000, 1000, 10.0000, 1000.0000"].assert_eq(&figures.row(
            &ConsumerFigures::default(),
            2_000,
            1_000,
        ));
    }

    #[test]
    fn moments_are_written_as_dates() {
        assert_eq!(date_time(0), "1970-01-01 00:00:00:000");
        assert_eq!(date_time(951_782_400_000), "2000-02-29 00:00:00:000");
        assert_eq!(date_time(1_700_000_000_123), "2023-11-14 22:13:20:123");
    }

    #[test]
    fn throttling_waits_until_the_rate_allows_more() {
        assert_eq!(throttle_ms(1_000, 100.0, 4_000), 6_000);
        assert_eq!(throttle_ms(1_000, 100.0, 12_000), 0);
        assert_eq!(throttle_ms(1_000, -1.0, 0), 0);
    }
}
