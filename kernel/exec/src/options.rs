//! What the process is told by whoever starts it.

use std::ffi::OsString;

/// Arguments: `--connection fd:N --core fd:N`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Options {
    /// The number of the accepted connection, a stream socket of any family.
    pub(crate) connection: i32,
    /// The number of the Unix socket over which the agent takes connections to its core.
    pub(crate) core: i32,
}

/// Why the arguments were not understood.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum OptionsError {
    /// Something that is no option, or an option without its value.
    #[error("argument {0:?} is not understood")]
    Unknown(OsString),
    /// A value that names no descriptor.
    #[error("{name} {value:?} is not fd:N")]
    Descriptor { name: &'static str, value: OsString },
    /// An option that must be there.
    #[error("{0} is missing")]
    Missing(&'static str),
}

const CONNECTION: &str = "--connection";
const CORE: &str = "--core";

impl Options {
    /// Reads the arguments behind the program's name.
    pub(crate) fn parse(
        mut arguments: impl Iterator<Item = OsString>,
    ) -> Result<Self, OptionsError> {
        let (mut connection, mut core) = (None, None);
        while let Some(argument) = arguments.next() {
            let (name, place) = match argument.to_str() {
                Some(CONNECTION) => (CONNECTION, &mut connection),
                Some(CORE) => (CORE, &mut core),
                _ => return Err(OptionsError::Unknown(argument)),
            };
            let Some(value) = arguments.next() else {
                return Err(OptionsError::Unknown(argument));
            };
            let number = value
                .to_str()
                .and_then(|value| value.strip_prefix("fd:")?.parse().ok());
            *place = Some(number.ok_or(OptionsError::Descriptor { name, value })?);
        }
        Ok(Self {
            connection: connection.ok_or(OptionsError::Missing(CONNECTION))?,
            core: core.ok_or(OptionsError::Missing(CORE))?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Options, OptionsError> {
        Options::parse(arguments.iter().map(OsString::from))
    }

    #[test]
    fn both_descriptors_are_named() {
        let expected = Options {
            connection: 3,
            core: 4,
        };
        assert_eq!(
            parse(&["--core", "fd:4", "--connection", "fd:3"]),
            Ok(expected)
        );
        for (arguments, message) in [
            (&["--core", "fd:4"][..], "--connection is missing"),
            (&["--core", "4"], "--core \"4\" is not fd:N"),
            (&["--core"], "argument \"--core\" is not understood"),
            (&["fd:3"], "argument \"fd:3\" is not understood"),
        ] {
            assert_eq!(parse(arguments).unwrap_err().to_string(), message);
        }
    }
}
