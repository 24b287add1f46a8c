//! Records of pax: what a header of tar has no room for. POSIX.1-2017, "pax Extended Header"
//! (<https://pubs.opengroup.org/onlinepubs/9699919799/utilities/pax.html>).

use tar::{EntryType, Header};

use crate::mtime::Mtime;

/// What stands before an entry and holds for it.
#[derive(Debug, Default)]
pub(crate) struct Records {
    pub(crate) path: Option<Vec<u8>>,
    pub(crate) link: Option<Vec<u8>>,
    pub(crate) mtime: Option<Mtime>,
}

impl Records {
    /// Reads the content of an extended header; says what cannot be read.
    pub(crate) fn read(&mut self, content: &[u8]) -> Result<(), &'static str> {
        let mut rest = content;
        while !rest.is_empty() {
            let (key, value, behind) =
                split_record(rest).ok_or("its extended header is damaged")?;
            rest = behind;
            match key {
                b"path" => self.path = Some(value.to_vec()),
                b"linkpath" => self.link = Some(value.to_vec()),
                b"mtime" => {
                    let text = str::from_utf8(value).map_err(|_| "its time is no number")?;
                    self.mtime = Some(Mtime::from_decimal(text).ok_or("its time is no number")?);
                }
                // The length of what follows would be another than the header says.
                b"size" => return Err("its size stands outside its header"),
                key if key.starts_with(b"GNU.sparse") => return Err("it is stored sparsely"),
                _ => {}
            }
        }
        Ok(())
    }
}

/// The key and the value of the first record, and what follows it. By its length alone: a value may hold anything.
fn split_record(content: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = content.iter().position(|byte| *byte == b' ')?;
    let length: usize = str::from_utf8(&content[..space]).ok()?.parse().ok()?;
    let (record, rest) = content.split_at_checked(length)?;
    let record = record.get(space + 1..)?.strip_suffix(b"\n")?;
    let equals = record.iter().position(|byte| *byte == b'=')?;
    Some((&record[..equals], &record[equals + 1..], rest))
}

/// One record: its own length in decimal, key and value.
pub(crate) fn push_record(key: &str, value: &[u8], out: &mut Vec<u8>) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while rest + length.to_string().len() != length {
        length = rest + length.to_string().len();
    }
    out.extend_from_slice(format!("{length} {key}=").as_bytes());
    out.extend_from_slice(value);
    out.push(b'\n');
}

/// The header that stands before `length` bytes of records.
pub(crate) fn records_header(length: usize) -> Header {
    let mut header = Header::new_ustar();
    header.set_entry_type(EntryType::XHeader);
    header.set_size(length as u64);
    header.set_mode(0o644);
    let name = b"records";
    header.as_old_mut().name[..name.len()].copy_from_slice(name);
    header.set_cksum();
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_as_they_are_written() {
        for length in [0, 1, 80, 85, 86, 87, 88, 89, 90, 91, 980, 985, 990, 20_000] {
            let value = vec![b'\n'; length];
            let mut content = Vec::new();
            push_record("path", &value, &mut content);
            push_record("mtime", b"1.5", &mut content);
            let mut records = Records::default();
            records.read(&content).unwrap();
            assert_eq!(records.path, Some(value));
            assert_eq!(records.mtime, Some(Mtime(1_500_000_000)));
        }
        let mut records = Records::default();
        records.read(b"9 size=7\n").unwrap_err();
        for damaged in [
            &b"5 a=b"[..],
            b"9 a=b\n",
            b"0 a=b\n",
            b"x",
            b"-1 a=b\n",
            b" a=b\n",
            b"5 ab\n",
        ] {
            records.read(damaged).unwrap_err();
        }
    }
}
