//! Frame rates as people write them.

use keyframed_engine::Rate;

/// `25`, `29.97` (the broadcast rate it stands for) or `30000/1001`, in lowest terms.
///
/// # Errors
/// What is expected.
pub fn parse(text: &str) -> Result<Rate, String> {
    let parsed = match text.split_once('/') {
        Some((num, den)) => num.parse().ok().zip(den.parse().ok()),
        None => text.parse().ok().and_then(decimal),
    };
    let fits = |rate: &Rate| (1.0..=240.0).contains(&(f64::from(rate.num()) / f64::from(rate.den())));
    parsed
        .map(|(num, den)| lowest(num, den))
        .and_then(|(num, den)| Rate::new(num, den).ok())
        .filter(fits)
        .ok_or_else(|| "expected a rate from 1 to 240 such as 25, 29.97 or 30000/1001".into())
}

/// The fraction a decimal rate means: NTSC rates are thousandths of 1001.
fn decimal(fps: f64) -> Option<(u32, u32)> {
    if !(0.0..=1000.0).contains(&fps) {
        return None;
    }
    let ntsc = (fps * 1.001).round();
    if fps.fract() != 0.0 && (ntsc * 1000.0 / 1001.0 - fps).abs() < 0.005 {
        return Some((ntsc as u32 * 1000, 1001));
    }
    Some(((fps * 1000.0).round() as u32, 1000))
}

fn lowest(num: u32, den: u32) -> (u32, u32) {
    let (mut a, mut b) = (num, den);
    while b != 0 {
        (a, b) = (b, a % b);
    }
    num.checked_div(a).zip(den.checked_div(a)).unwrap_or((num, den))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_as_people_write_them() {
        let rate = |text| parse(text).map(|r| (r.num(), r.den()));
        assert_eq!(rate("30000/1001"), Ok((30000, 1001)));
        assert_eq!(rate("29.97"), Ok((30000, 1001)));
        assert_eq!(rate("23.976"), Ok((24000, 1001)));
        assert_eq!(rate("25"), Ok((25, 1)));
        assert_eq!(rate("50/2"), Ok((25, 1)));
        assert_eq!(rate("12.5"), Ok((25, 2)));
        for bad in ["0", "-1", "", "NaN", "inf", "25/0", "0/0", "0/1", "1/2/3", "1e9", "241", "x"] {
            assert!(rate(bad).is_err(), "{bad}");
        }
    }
}
