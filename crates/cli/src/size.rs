//! Sizes as people write them: `64M`, `1G`, `2T`, in powers of 1024.

use std::fmt;

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

const UNITS: [(char, u32); 6] = [('E', 60), ('P', 50), ('T', 40), ('G', 30), ('M', 20), ('K', 10)];

impl std::str::FromStr for Size {
    type Err = String;

    /// A whole number of bytes, or of a unit: K, M, G, T, P or E, in either case, with or without `iB`.
    fn from_str(text: &str) -> Result<Size, String> {
        let wrong = || format!("{text:?} is not a size: write a whole number and a unit, as in 64M, 1G or 2T");
        let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, unit) = text.split_at(digits);
        let number: u64 = number.parse().map_err(|_| wrong())?;
        let unit = unit.to_ascii_uppercase();
        let shift = match unit.strip_suffix("IB").unwrap_or(&unit) {
            "" if unit.is_empty() => 0,
            "B" => 0,
            letter => UNITS.iter().find(|(u, _)| letter == u.to_string()).ok_or_else(wrong)?.1,
        };
        number
            .checked_mul(1 << shift)
            .map(Size)
            .ok_or_else(|| format!("{text:?} is more than 2^64 bytes"))
    }
}

impl Size {
    /// As text that reads back as the very same number.
    pub fn exact(self) -> String {
        let unit = UNITS
            .iter()
            .find(|(_, shift)| self.0 != 0 && self.0.trailing_zeros() >= *shift);
        unit.map_or_else(
            || self.0.to_string(),
            |(letter, shift)| format!("{}{letter}", self.0 >> shift),
        )
    }
}

impl fmt::Display for Size {
    /// For people: in the largest unit that is not more than it, with one decimal where that says more.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((unit, shift)) = UNITS.iter().find(|(_, shift)| self.0 >> shift != 0) else {
            return write!(f, "{}", self.0);
        };
        let tenths = (u128::from(self.0) * 10) >> shift;
        match (tenths / 10, tenths % 10) {
            (whole, 0) => write!(f, "{whole}{unit}"),
            (whole, tenth) => write!(f, "{whole}.{tenth}{unit}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_count_in_powers_of_1024() {
        for (text, bytes) in [
            ("0", 0),
            ("1", 1),
            ("512b", 512),
            ("4K", 4096),
            ("64M", 64 << 20),
            ("64MiB", 64 << 20),
            ("1g", 1 << 30),
            ("2T", 2 << 40),
            ("15E", 15 << 60),
        ] {
            assert_eq!(text.parse(), Ok(Size(bytes)), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused_with_its_text() {
        for text in [
            "",
            "M",
            "-1",
            "1.5G",
            "1 G",
            "1X",
            "16E",
            "18446744073709551616",
            "iB",
            "1KB",
            "٣M",
        ] {
            let error = text.parse::<Size>().unwrap_err();
            assert!(error.contains(text), "{text:?}: {error}");
        }
    }

    #[test]
    fn sizes_are_shown_in_the_unit_that_fits() {
        for (bytes, text) in [
            (0, "0"),
            (1000, "1000"),
            (1 << 30, "1G"),
            (1536 << 20, "1.5G"),
            ((1 << 40) + 1, "1T"),
            (5000 << 30, "4.8T"),
            (u64::MAX, "15.9E"),
        ] {
            assert_eq!(Size(bytes).to_string(), text);
        }
    }

    #[test]
    fn the_exact_form_reads_back() {
        for bytes in [0, 1, 1000, 4096, 64 << 20, (64 << 20) + 1, 3 << 60, u64::MAX] {
            assert_eq!(Size(bytes).exact().parse(), Ok(Size(bytes)));
        }
        assert_eq!(Size(64 << 20).exact(), "64M");
    }
}
