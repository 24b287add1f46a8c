//! Ports that end the machine, and all the others.

use super::board::Board;
use crate::devices::Ended;
use crate::layout::{KEYBOARD_COMMAND, SERIAL, SLEEP_CONTROL};

#[test]
fn only_the_right_bytes_end_the_machine() {
    let mut board = Board::new();
    for byte in 0..=u8::MAX {
        let ended = board.devices.write_port(SLEEP_CONTROL, &[byte]).unwrap();
        // ACPI 6.5, 4.8.3.7: bit 5 enables, bits 2 to 4 are the type.
        let is_off = byte & 0x20 != 0 && (byte >> 2) & 7 == 5;
        assert_eq!(ended, is_off.then_some(Ended::PowerOff), "{byte:#x}");
        let ended = board.devices.write_port(KEYBOARD_COMMAND, &[byte]).unwrap();
        assert_eq!(ended, (byte == 0xfe).then_some(Ended::Reset), "{byte:#x}");
    }
}

#[test]
fn every_port_takes_any_access() {
    let mut board = Board::new();
    for port in 0..=u16::MAX {
        for bytes in [
            &mut [][..],
            &mut [1],
            &mut [2; 2],
            &mut [3; 4],
            &mut [4; 300],
        ] {
            assert_eq!(board.devices.write_port(port, bytes), Ok(None), "{port:#x}");
            board.devices.read_port(port, bytes);
            let is_known = (SERIAL..SERIAL + 8).contains(&port) || port == KEYBOARD_COMMAND;
            assert!(is_known || bytes.iter().all(|byte| *byte == 0xff));
        }
    }
}
