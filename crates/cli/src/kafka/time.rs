//! Dates and durations as Kafka's tools take them.

/// Milliseconds since 1970 of `YYYY-MM-DDThh:mm:ss.sss`, in UTC unless `Z`, `+hh`, `+hhmm` or `+hh:mm` follows.
pub fn parse_datetime(text: &str) -> Option<i64> {
    let (date, time) = text.split_once('T')?;
    let mut date = date.splitn(3, '-').map(number);
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    let (time, zone) = match time.find(['Z', '+', '-']) {
        Some(place) => time.split_at(place),
        None => (time, "Z"),
    };
    let (time, fraction) = time.split_once('.')?;
    let mut time = time.splitn(3, ':').map(number);
    let (hour, minute, second) = (time.next()??, time.next()??, time.next()??);
    let millisecond = number(fraction)?;
    let is_valid = (1..=12).contains(&month)
        && (1..=days_of_month(year, month)).contains(&day)
        && hour < 24
        && minute < 60
        && second < 60
        && millisecond < 1000;
    if !is_valid {
        return None;
    }
    let seconds = ((days_since_1970(year, month, day) * 24 + hour) * 60 + minute) * 60 + second;
    Some((seconds - zone_seconds(zone)?) * 1000 + millisecond)
}

/// Seconds east of Greenwich.
fn zone_seconds(zone: &str) -> Option<i64> {
    if zone == "Z" {
        return Some(0);
    }
    let (sign, digits) = zone.split_at_checked(1)?;
    let digits = digits.replace(':', "");
    let (hours, minutes) = match digits.len() {
        2 => (number(&digits)?, 0),
        4 => (number(&digits[..2])?, number(&digits[2..])?),
        _ => return None,
    };
    let seconds = (hours < 24 && minutes < 60).then_some((hours * 60 + minutes) * 60)?;
    Some(if sign == "-" { -seconds } else { seconds })
}

fn number(text: &str) -> Option<i64> {
    let is_short = (1..=9).contains(&text.len());
    (is_short && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse().ok())?
}

const fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

const fn days_of_month(year: i64, month: i64) -> i64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// By the Gregorian calendar: whole years with their leap days, then whole months.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let leap_days_before =
        |year: i64| (year - 1).div_euclid(4) - (year - 1).div_euclid(100) + (year - 1).div_euclid(400);
    let years = (year - 1970) * 365 + leap_days_before(year) - leap_days_before(1970);
    years + (1..month).map(|month| days_of_month(year, month)).sum::<i64>() + day - 1
}

/// Milliseconds of an ISO 8601 duration in days and smaller units: `P1DT2H3M4.5S`.
pub fn parse_duration(text: &str) -> Option<i64> {
    let (is_negative, body) = match text.strip_prefix('-') {
        Some(body) => (true, body),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let body = body.strip_prefix(['P', 'p'])?;
    let (days, time) = match body.split_once(['T', 't']) {
        Some((days, time)) => (days, Some(time)),
        None => (body, None),
    };
    let mut total = 0;
    let mut parts = 0;
    if !days.is_empty() {
        total += signed(days.strip_suffix(['D', 'd'])?)?.checked_mul(86_400_000)?;
        parts += 1;
    }
    let mut rest = time.unwrap_or_default();
    for (unit, milliseconds) in [('H', 3_600_000), ('M', 60_000)] {
        if let Some((amount, after)) = rest.split_once([unit, unit.to_ascii_lowercase()]) {
            total += signed(amount)?.checked_mul(milliseconds)?;
            parts += 1;
            rest = after;
        }
    }
    if let Some(seconds) = rest.strip_suffix(['S', 's']) {
        let (whole, fraction) = seconds.split_once('.').unwrap_or((seconds, ""));
        let fraction = format!("{fraction:0<3}");
        let milliseconds = number(fraction.get(..3)?)?;
        let whole_milliseconds = signed(whole)?.checked_mul(1000)?;
        total +=
            if whole.starts_with('-') { whole_milliseconds - milliseconds } else { whole_milliseconds + milliseconds };
        parts += 1;
        rest = "";
    }
    let is_whole = rest.is_empty() && parts > 0 && time != Some("");
    is_whole.then_some(if is_negative { -total } else { total })
}

fn signed(text: &str) -> Option<i64> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    Some(sign * number(digits)?)
}

#[cfg(test)]
mod tests {
    use super::{parse_datetime, parse_duration};

    #[test]
    fn datetimes() {
        assert_eq!(parse_datetime("1970-01-01T00:00:00.000"), Some(0));
        assert_eq!(parse_datetime("2000-03-01T00:00:00.001Z"), Some(951_868_800_001));
        assert_eq!(parse_datetime("2024-02-29T12:30:15.250"), Some(1_709_209_815_250));
        assert_eq!(parse_datetime("2024-02-29T12:30:15.250+02:00"), Some(1_709_202_615_250));
        assert_eq!(parse_datetime("2024-02-29T12:30:15.250-0130"), Some(1_709_215_215_250));
        assert_eq!(parse_datetime("1969-12-31T23:59:59.999"), Some(-1));
        for wrong in ["2023-02-29T00:00:00.000", "2024-01-01", "2024-01-01T24:00:00.000", "2024-01-01T00:00:00", "x"] {
            assert_eq!(parse_datetime(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn durations() {
        assert_eq!(parse_duration("P1D"), Some(86_400_000));
        assert_eq!(parse_duration("PT0S"), Some(0));
        assert_eq!(parse_duration("P1DT2H3M4.5S"), Some(93_784_500));
        assert_eq!(parse_duration("pt10m"), Some(600_000));
        assert_eq!(parse_duration("-PT1M"), Some(-60_000));
        assert_eq!(parse_duration("PT-1.5S"), Some(-1_500));
        for wrong in ["", "P", "PT", "1D", "P1H", "PT1D", "P1DT", "PTS", "P1W"] {
            assert_eq!(parse_duration(wrong), None, "{wrong}");
        }
    }
}
