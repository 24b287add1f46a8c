//! The numbers of the frame format.

/// The first two bytes of every frame: `VM`.
pub const MAGIC: u16 = 0x564D;

/// Bytes before the payload.
pub const HEADER_BYTES: usize = 16;

/// What a frame says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// Begins or confirms an epoch; payload: the generation of the protocol, u32.
    Hello = 1,
    /// Opens a stream; payload: the port, u32.
    Open = 2,
    /// Takes a stream.
    Accept = 3,
    /// Bytes of a stream.
    Data = 4,
    /// Allows more bytes; payload: how many more, u32.
    Credit = 5,
    /// The sender sends no more on the stream.
    Fin = 6,
    /// The stream is cut off, both ways; payload: the reason, u32.
    Reset = 7,
}

impl Kind {
    pub(super) fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Hello,
            2 => Self::Open,
            3 => Self::Accept,
            4 => Self::Data,
            5 => Self::Credit,
            6 => Self::Fin,
            7 => Self::Reset,
            _ => return None,
        })
    }
}
