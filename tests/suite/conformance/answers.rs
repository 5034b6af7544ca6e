//! Reads from the gateway's log what came of the calls of a guest.

use std::collections::BTreeMap;

use super::guest::{Case, FILL, Out};

/// What came of the calls: by number, the status and the results as they were shown.
fn answers(log: &str) -> BTreeMap<usize, (u32, Vec<String>)> {
    let answer = |line: &str| {
        let (_, line) = line.split_once("case ")?;
        let (line, _) = line.split_once(" plugin=")?;
        let mut words = line.split(' ');
        let mut number = || u32::from_str_radix(words.next()?, 16).ok();
        let (at, status) = (number()? as usize, number()?);
        Some((at, (status, words.map(str::to_owned).collect())))
    };
    log.lines().filter_map(answer).collect()
}

impl Out {
    /// Whether it was shown like that.
    fn is(&self, shown: &str) -> bool {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        match self {
            Self::Any => true,
            Self::Int(number) => shown == hex(&number.to_le_bytes()),
            Self::Long(number) => shown == hex(&number.to_le_bytes()),
            Self::Bytes(b"") => shown == "-",
            Self::Bytes(bytes) => shown == hex(bytes),
            Self::Nothing => shown == hex(&vec![FILL; shown.len() / 2]),
        }
    }
}

/// What of these cases did not come out as it should have, by the log.
pub fn wrong(cases: &[Case], log: &str) -> Vec<String> {
    let answers = answers(log);
    let mut wrong = Vec::new();
    for (number, case) in cases.iter().enumerate() {
        let Case { phase, function, args, status, out } = case;
        let Some((answered, shown)) = answers.get(&number) else {
            wrong.push(format!("{phase:?} {function}{args:?}: it was not called"));
            continue;
        };
        if answered != status {
            wrong.push(format!("{phase:?} {function}{args:?}: {answered} instead of {status}"));
        }
        for (out, shown) in out.iter().zip(shown) {
            if !out.is(shown) {
                wrong.push(format!("{phase:?} {function}{args:?}: {shown} instead of {out:?}"));
            }
        }
    }
    wrong
}

/// The last case of a phase: when it is in the log, those before it are.
pub fn line(number: usize) -> String {
    format!("case {number:04x} ")
}
