//! Writes heads, piece by piece, at the end of the caller's vector. The caller decides
//! what is written.

/// Appends `HTTP/1.1 <status> <reason>` and CRLF. `reason` may be empty; the blank before it
/// stays (RFC 9112 4).
pub fn status_line(out: &mut Vec<u8>, status: u16, reason: &[u8]) {
    // The caller's duty; checking each of them would be work for every response.
    debug_assert!(is_field_value(reason));
    out.extend_from_slice(b"HTTP/1.1 ");
    let digit = |place: u16| b'0' + (status / place % 10) as u8;
    out.extend_from_slice(&[digit(100), digit(10), digit(1), b' ']);
    out.extend_from_slice(reason);
    out.extend_from_slice(b"\r\n");
}

/// Appends `name: value` and CRLF. Both must be valid as they are: bytes of a parsed head, or
/// checked with [`is_field_value`] when they come from elsewhere.
#[inline]
pub fn field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    // The caller's duty; checking each of them would be work for every message.
    debug_assert!(is_field_value(value) && !name.is_empty());
    out.reserve(name.len() + value.len() + 4);
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// [`field`] for a value that may be any bytes (a name found in a request's body): those that a
/// value cannot hold become `?`.
pub fn field_lossy(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    if is_field_value(value) {
        return field(out, name, value);
    }
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend(
        value
            .iter()
            .map(|&byte| if is_value_byte(byte) { byte } else { b'?' }),
    );
    out.extend_from_slice(b"\r\n");
}

/// Appends `name: number` and CRLF.
#[inline]
pub fn field_number(out: &mut Vec<u8>, name: &[u8], number: u64) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    decimal(out, number);
    out.extend_from_slice(b"\r\n");
}

/// Appends a number in decimal digits.
pub fn decimal(out: &mut Vec<u8>, number: u64) {
    let mut digits = itoa::Buffer::new();
    out.extend_from_slice(digits.format(number).as_bytes());
}

/// Whether bytes can stand in a field's value or a reason phrase: no control character but the
/// tab (RFC 9110 5.5).
pub(crate) fn is_field_value(value: &[u8]) -> bool {
    value.iter().all(|&byte| is_value_byte(byte))
}

/// A byte of a value: no control character but the tab.
pub(super) fn is_value_byte(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

/// The reason phrase of a status (RFC 9110 15 and 6585). Empty for one without a registered name.
pub fn reason(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        206 => "Partial Content",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        411 => "Length Required",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        417 => "Expectation Failed",
        422 => "Unprocessable Content",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        499 => "Client Closed Request",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        508 => "Loop Detected",
        529 => "Overloaded",
        _ => "",
    }
}

/// The length of a date as HTTP writes it.
pub(crate) const DATE_BYTES: usize = 29;

/// The second at which the four digits of the year end: 9999-12-31T23:59:59Z.
const DATE_SECS_MAX: u64 = 253_402_300_799;

/// A Unix time in seconds as `Sun, 06 Nov 1994 08:49:37 GMT` (IMF-fixdate, RFC 9110 5.6.7). Times
/// beyond the year 9999 are shown as its last second.
pub(crate) fn date(unix_secs: u64) -> [u8; DATE_BYTES] {
    const WEEKDAYS: [&[u8; 3]; 7] = [b"Thu", b"Fri", b"Sat", b"Sun", b"Mon", b"Tue", b"Wed"];
    const MONTHS: [&[u8; 3]; 12] = [
        b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov",
        b"Dec",
    ];
    let secs = unix_secs.min(DATE_SECS_MAX);
    let days = secs / 86_400;
    let (year, month, day) = civil(days);
    let mut text = *b"Thu, 01 Jan 1970 00:00:00 GMT";
    let mut put = |at: usize, bytes: &[u8]| {
        for (to, from) in text.iter_mut().skip(at).zip(bytes) {
            *to = *from;
        }
    };
    let two = |number: u64| [b'0' + (number / 10 % 10) as u8, b'0' + (number % 10) as u8];
    put(
        0,
        WEEKDAYS
            .get((days % 7) as usize)
            .map_or(&b"Thu"[..], |day| &day[..]),
    );
    put(5, &two(day));
    put(
        8,
        MONTHS
            .get(month as usize - 1)
            .map_or(&b"Jan"[..], |month| &month[..]),
    );
    put(12, &two(year / 100));
    put(14, &two(year % 100));
    put(17, &two(secs / 3600 % 24));
    put(20, &two(secs / 60 % 60));
    put(23, &two(secs % 60));
    text
}

/// Days since 1970-01-01 as year, month (1 to 12) and day (1 to 31), Gregorian. Counted from a
/// first of March, so that the leap day is the last of its year: months then begin after
/// 153 days for each five of them.
fn civil(days: u64) -> (u64, u64, u64) {
    const DAYS_FROM_YEAR_0_MARCH: u64 = 719_468;
    const DAYS_PER_400_YEARS: u64 = 146_097;
    let days = days + DAYS_FROM_YEAR_0_MARCH;
    let era = days / DAYS_PER_400_YEARS;
    let day_of_era = days % DAYS_PER_400_YEARS;
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn lines() {
        assert_eq!(
            written(|out| status_line(out, 200, b"OK")),
            "HTTP/1.1 200 OK\r\n"
        );
        assert_eq!(
            written(|out| status_line(out, 999, b"")),
            "HTTP/1.1 999 \r\n"
        );
        assert_eq!(
            written(|out| field(out, b"Via", b"1.1 a")),
            "Via: 1.1 a\r\n"
        );
        assert_eq!(written(|out| field_number(out, b"Age", 0)), "Age: 0\r\n");
        assert_eq!(
            written(|out| field_lossy(out, b"M", b"a\r\nb: c")),
            "M: a??b: c\r\n"
        );
        assert_eq!(
            written(|out| field_lossy(out, b"M", "caf\u{e9}".as_bytes())),
            "M: café\r\n"
        );
    }

    #[test]
    fn numbers() {
        for number in [0, 1, 9, 10, 99, 100, 12_345, u64::MAX] {
            assert_eq!(written(|out| decimal(out, number)), number.to_string());
        }
    }

    #[test]
    fn values() {
        for good in [&b""[..], b"a b\tc", b"caf\xe9", b"\x80\xff"] {
            assert!(is_field_value(good), "{good:?}");
        }
        for bad in [&b"a\nb"[..], b"\r", b"\0", b"\x7f", b"\x1b[0m", b"\x0b"] {
            assert!(!is_field_value(bad), "{bad:?}");
        }
    }

    #[test]
    fn dates() {
        let table = [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (951_782_399, "Mon, 28 Feb 2000 23:59:59 GMT"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"),
            (951_868_800, "Wed, 01 Mar 2000 00:00:00 GMT"),
            (1_709_164_800, "Thu, 29 Feb 2024 00:00:00 GMT"),
            (1_798_761_599, "Thu, 31 Dec 2026 23:59:59 GMT"),
            (4_107_542_400, "Mon, 01 Mar 2100 00:00:00 GMT"),
            (253_402_300_799, "Fri, 31 Dec 9999 23:59:59 GMT"),
            (u64::MAX, "Fri, 31 Dec 9999 23:59:59 GMT"),
        ];
        for (secs, text) in table {
            assert_eq!(std::str::from_utf8(&date(secs)).unwrap(), text);
        }
    }

    #[test]
    fn every_status_of_a_refusal_has_a_reason() {
        for status in [400, 405, 417, 431, 501, 505] {
            assert!(!reason(status).is_empty(), "{status}");
        }
        assert_eq!(reason(299), "");
    }
}
