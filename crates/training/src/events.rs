//! TensorBoard event files: protobuf `Event` messages framed as TFRecords.
//!
//! Sources: the framing from TensorFlow's `core/lib/io/record_writer.h` (length, masked CRC-32C of the
//! length, data, masked CRC-32C of the data; little endian), the messages from `core/util/event.proto` and
//! `core/framework/summary.proto`, of which only the fields used here are declared. Written by hand because
//! it is eighty lines, and a resumed run has to mark where it starts again.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use prost::{Message, Oneof};

use crate::append::AppendFile;

#[derive(Clone, PartialEq, Message)]
struct Event {
    #[prost(double, tag = "1")]
    wall_time: f64,
    #[prost(int64, tag = "2")]
    step: i64,
    #[prost(oneof = "What", tags = "3, 5, 7")]
    what: Option<What>,
}

#[derive(Clone, PartialEq, Oneof)]
enum What {
    #[prost(string, tag = "3")]
    FileVersion(String),
    #[prost(message, tag = "5")]
    Summary(Summary),
    #[prost(message, tag = "7")]
    SessionLog(SessionLog),
}

#[derive(Clone, PartialEq, Message)]
struct Summary {
    #[prost(message, repeated, tag = "1")]
    value: Vec<SummaryValue>,
}

#[derive(Clone, PartialEq, Message)]
struct SummaryValue {
    #[prost(string, tag = "1")]
    tag: String,
    #[prost(float, optional, tag = "2")]
    simple_value: Option<f32>,
}

#[derive(Clone, PartialEq, Message)]
struct SessionLog {
    #[prost(int32, tag = "1")]
    status: i32,
}

/// `SessionLog.SessionStatus.START`: readers forget what earlier files say of this step and later ones.
/// Every file has one: TensorBoard takes the first of a run for its start, the later ones for restarts
/// (tensorflow/tensorboard#4763).
const SESSION_START: i32 = 1;

/// One event file, open for appending.
#[derive(Debug)]
pub(crate) struct EventFile(AppendFile);

impl EventFile {
    /// Starts a new file in `folder` whose events follow update `last_update`, and says where.
    pub(crate) fn create(folder: &Path, last_update: usize) -> io::Result<(Self, PathBuf)> {
        let now = SystemTime::now();
        let (file, path) = create_after_all_others(folder, seconds(now) as u64)?;
        let mut events = Self(AppendFile::new(file, 0));
        events.write(&event(now, 0, What::FileVersion("brain.Event:2".into())))?;
        let start = What::SessionLog(SessionLog { status: SESSION_START });
        events.write(&event(now, last_update + 1, start))?;
        Ok((events, path))
    }

    /// Appends tagged numbers of one step.
    pub(crate) fn write_scalars(
        &mut self,
        time: SystemTime,
        step: usize,
        scalars: Vec<(String, f32)>,
    ) -> io::Result<()> {
        let value = scalars
            .into_iter()
            .map(|(tag, number)| SummaryValue { tag, simple_value: Some(number) })
            .collect();
        self.write(&event(time, step, What::Summary(Summary { value })))
    }

    pub(crate) fn sync(&mut self) -> io::Result<()> {
        self.0.sync()
    }

    fn write(&mut self, event: &Event) -> io::Result<()> {
        let data = event.encode_to_vec();
        let length = (data.len() as u64).to_le_bytes();
        let mut record = Vec::with_capacity(data.len() + 16);
        record.extend_from_slice(&length);
        record.extend_from_slice(&masked_crc(&length).to_le_bytes());
        record.extend_from_slice(&data);
        record.extend_from_slice(&masked_crc(&data).to_le_bytes());
        self.0.append(&record)
    }
}

/// Readers take the files of a folder in the order of their names, so a later file needs a later name.
fn create_after_all_others(folder: &Path, now_seconds: u64) -> io::Result<(File, PathBuf)> {
    let mut stamp = now_seconds;
    loop {
        let path = folder.join(format!("events.out.tfevents.{stamp:010}.contaccum"));
        match File::create_new(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => stamp += 1,
            file => return Ok((file?, path)),
        }
    }
}

fn event(time: SystemTime, step: usize, what: What) -> Event {
    Event { wall_time: seconds(time), step: step as i64, what: Some(what) }
}

fn seconds(time: SystemTime) -> f64 {
    // A clock before 1970 only spoils the label of the event.
    time.duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// CRC-32C as TFRecords store it: rotated right by 15 bits plus a constant.
fn masked_crc(data: &[u8]) -> u32 {
    crc32c::crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    #[derive(Debug, PartialEq)]
    pub(crate) enum TestEvent {
        Version(String),
        SessionStart(i64),
        Scalars(i64, Vec<(String, f32)>),
    }

    /// Reads a file back, checking both checksums of every record.
    pub(crate) fn read_events(path: &Path) -> Vec<TestEvent> {
        let bytes = std::fs::read(path).unwrap();
        let mut rest = bytes.as_slice();
        let mut take = |count: usize| {
            let (head, tail) = rest.split_at_checked(count)?;
            rest = tail;
            Some(head)
        };
        let mut events = Vec::new();
        while let Some(length) = take(8) {
            assert_eq!(take(4).unwrap(), masked_crc(length).to_le_bytes());
            let data = take(u64::from_le_bytes(length.try_into().unwrap()) as usize).unwrap();
            assert_eq!(take(4).unwrap(), masked_crc(data).to_le_bytes());
            let event = Event::decode(data).unwrap();
            events.push(match event.what.unwrap() {
                What::FileVersion(version) => TestEvent::Version(version),
                What::SessionLog(log) => {
                    assert_eq!(log.status, SESSION_START);
                    TestEvent::SessionStart(event.step)
                }
                What::Summary(summary) => {
                    let pair = |value: SummaryValue| (value.tag, value.simple_value.unwrap());
                    TestEvent::Scalars(event.step, summary.value.into_iter().map(pair).collect())
                }
            });
        }
        events
    }
}

#[cfg(test)]
mod tests {
    use super::testing::{TestEvent, read_events};
    use super::*;

    /// The checksum of "123456789" is the published check value of CRC-32C, 0xE3069283.
    #[test]
    fn the_checksum_is_castagnolis_masked() {
        let unmasked = masked_crc(b"123456789").wrapping_sub(0xa282_ead8).rotate_left(15);
        assert_eq!(unmasked, 0xE306_9283);
    }

    #[test]
    fn events_are_read_back_as_written() {
        let folder = tempfile::tempdir().unwrap();
        let (mut file, path) = EventFile::create(folder.path(), 6).unwrap();
        file.write_scalars(SystemTime::now(), 7, vec![("train/loss".into(), 0.0)]).unwrap();
        let expected = [
            TestEvent::Version("brain.Event:2".into()),
            TestEvent::SessionStart(7),
            TestEvent::Scalars(7, vec![("train/loss".into(), 0.0)]),
        ];
        assert_eq!(read_events(&path), expected);
    }

    #[test]
    fn files_of_one_second_sort_in_the_order_they_were_made() {
        let folder = tempfile::tempdir().unwrap();
        let names: Vec<PathBuf> =
            (0..3).map(|_| create_after_all_others(folder.path(), 1_700_000_000).unwrap().1).collect();
        assert!(names.is_sorted());
    }
}
