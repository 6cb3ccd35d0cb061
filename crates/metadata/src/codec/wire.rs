//! How single values are laid out, and the macros that spell out structs, enums and frames field by field.

use std::collections::BTreeMap;

use vltava_types::{
    BrokerEpoch, BrokerId, DirectoryId, IncarnationId, LeaderEpoch, MetadataOffset, PartitionEpoch, PartitionIndex,
    ProducerId, TopicId, Uuid,
};

use super::DecodeError;

/// A value with a binary form.
pub(super) trait Wire: Sized {
    fn write(&self, out: &mut Vec<u8>);

    fn read(input: &mut Reader<'_>) -> Result<Self, DecodeError>;

    /// Some value, for tests.
    #[cfg(test)]
    fn sample(entropy: &mut Entropy<'_>) -> Self;
}

/// The bytes not yet read.
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    pub(super) fn take(&mut self, length: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self.bytes.split_at_checked(length).ok_or(DecodeError::Truncated)?;
        self.bytes = rest;
        Ok(taken)
    }

    pub(super) fn finish(&self) -> Result<(), DecodeError> {
        if self.bytes.is_empty() { Ok(()) } else { Err(DecodeError::TrailingBytes(self.bytes.len())) }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        Ok(self.take(N)?.try_into().expect("as many bytes were taken"))
    }

    /// The length of a text or list. Every element takes a byte at least, which bounds what is allocated for it.
    fn length(&mut self) -> Result<usize, DecodeError> {
        let length = usize::try_from(u32::read(self)?).map_err(|_| DecodeError::Truncated)?;
        if length <= self.bytes.len() { Ok(length) } else { Err(DecodeError::Truncated) }
    }
}

/// Bytes that a test draws values from; zeroes once they are used up, so that samples stay finite.
#[cfg(test)]
pub(super) struct Entropy<'a> {
    bytes: &'a [u8],
}

#[cfg(test)]
impl<'a> Entropy<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    pub(super) fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.bytes.split_first() else { return 0 };
        self.bytes = rest;
        *first
    }
}

fn write_length(length: usize, out: &mut Vec<u8>) {
    u32::try_from(length).expect("a text or list has fewer than 2^32 elements").write(out);
}

pub(super) fn write_slice<T: Wire>(values: &[T], out: &mut Vec<u8>) {
    write_length(values.len(), out);
    for value in values {
        value.write(out);
    }
}

/// Writes a frame around the body that `write_body` writes.
pub(super) fn write_frame(kind: u16, version: u8, out: &mut Vec<u8>, write_body: impl FnOnce(&mut Vec<u8>)) {
    kind.write(out);
    version.write(out);
    let length_at = out.len();
    0u32.write(out);
    let body_at = out.len();
    write_body(out);
    let length = u32::try_from(out.len() - body_at).expect("a body has fewer than 2^32 bytes");
    out[length_at..body_at].copy_from_slice(&length.to_be_bytes());
}

macro_rules! wire_number {
    ($($number:ty),*) => {$(
        impl Wire for $number {
            fn write(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_be_bytes());
            }

            fn read(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
                input.array().map(Self::from_be_bytes)
            }

            #[cfg(test)]
            fn sample(entropy: &mut Entropy<'_>) -> Self {
                Self::from_be_bytes(std::array::from_fn(|_| entropy.byte()))
            }
        }
    )*};
}

wire_number!(u8, u16, u32, i16, i32, i64);

macro_rules! wire_newtype {
    ($($name:ident),*) => {$(
        impl Wire for $name {
            fn write(&self, out: &mut Vec<u8>) {
                self.0.write(out);
            }

            fn read(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
                Wire::read(input).map(Self)
            }

            #[cfg(test)]
            fn sample(entropy: &mut Entropy<'_>) -> Self {
                Self(Wire::sample(entropy))
            }
        }
    )*};
}

wire_newtype!(BrokerId, BrokerEpoch, LeaderEpoch, PartitionEpoch, PartitionIndex, ProducerId, MetadataOffset);
wire_newtype!(TopicId, DirectoryId, IncarnationId);

impl Wire for Uuid {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.0);
    }

    fn read(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        input.array().map(Self)
    }

    #[cfg(test)]
    fn sample(entropy: &mut Entropy<'_>) -> Self {
        Self(std::array::from_fn(|_| entropy.byte()))
    }
}

impl Wire for bool {
    fn write(&self, out: &mut Vec<u8>) {
        u8::from(*self).write(out);
    }

    fn read(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match u8::read(input)? {
            0 => Ok(false),
            1 => Ok(true),
            tag => Err(DecodeError::UnknownTag(tag)),
        }
    }

    #[cfg(test)]
    fn sample(entropy: &mut Entropy<'_>) -> Self {
        entropy.byte() % 2 == 1
    }
}

impl Wire for () {
    fn write(&self, _out: &mut Vec<u8>) {}

    fn read(_input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(())
    }

    #[cfg(test)]
    fn sample(_entropy: &mut Entropy<'_>) -> Self {}
}

impl Wire for String {
    fn write(&self, out: &mut Vec<u8>) {
        write_length(self.len(), out);
        out.extend_from_slice(self.as_bytes());
    }

    fn read(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let length = input.length()?;
        let text = std::str::from_utf8(input.take(length)?).map_err(|_| DecodeError::InvalidText)?;
        Ok(text.to_owned())
    }

    #[cfg(test)]
    fn sample(entropy: &mut Entropy<'_>) -> Self {
        (0..entropy.byte() % 8).map(|_| char::from(entropy.byte())).collect()
    }
}

impl<T: Wire> Wire for Option<T> {
    fn write(&self, out: &mut Vec<u8>) {
        self.is_some().write(out);
        if let Some(value) = self {
            value.write(out);
        }
    }

    fn read(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        if bool::read(input)? { T::read(input).map(Some) } else { Ok(None) }
    }

    #[cfg(test)]
    fn sample(entropy: &mut Entropy<'_>) -> Self {
        bool::sample(entropy).then(|| T::sample(entropy))
    }
}

impl<T: Wire, E: Wire> Wire for Result<T, E> {
    fn write(&self, out: &mut Vec<u8>) {
        self.is_ok().write(out);
        match self {
            Ok(value) => value.write(out),
            Err(error) => error.write(out),
        }
    }

    fn read(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        if bool::read(input)? { T::read(input).map(Ok) } else { E::read(input).map(Err) }
    }

    #[cfg(test)]
    fn sample(entropy: &mut Entropy<'_>) -> Self {
        if bool::sample(entropy) { Ok(T::sample(entropy)) } else { Err(E::sample(entropy)) }
    }
}

impl<T: Wire> Wire for Vec<T> {
    fn write(&self, out: &mut Vec<u8>) {
        write_slice(self, out);
    }

    fn read(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        // Grows as elements prove to be there: an element can be larger in memory than on the wire.
        let length = input.length()?;
        (0..length).map(|_| T::read(input)).collect()
    }

    #[cfg(test)]
    fn sample(entropy: &mut Entropy<'_>) -> Self {
        (0..entropy.byte() % 4).map(|_| T::sample(entropy)).collect()
    }
}

impl<K: Wire + Ord, V: Wire> Wire for BTreeMap<K, V> {
    fn write(&self, out: &mut Vec<u8>) {
        write_length(self.len(), out);
        for (key, value) in self {
            key.write(out);
            value.write(out);
        }
    }

    fn read(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let length = input.length()?;
        (0..length).map(|_| <(K, V)>::read(input)).collect()
    }

    #[cfg(test)]
    fn sample(entropy: &mut Entropy<'_>) -> Self {
        (0..entropy.byte() % 4).map(|_| <(K, V)>::sample(entropy)).collect()
    }
}

impl<A: Wire, B: Wire> Wire for (A, B) {
    fn write(&self, out: &mut Vec<u8>) {
        self.0.write(out);
        self.1.write(out);
    }

    fn read(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok((A::read(input)?, B::read(input)?))
    }

    #[cfg(test)]
    fn sample(entropy: &mut Entropy<'_>) -> Self {
        (A::sample(entropy), B::sample(entropy))
    }
}

/// A struct: its fields in order, all of them, without a frame.
macro_rules! wire_struct {
    ($name:ident { $($field:ident),* $(,)? }) => {
        impl Wire for $name {
            fn write(&self, out: &mut Vec<u8>) {
                let Self { $($field),* } = self;
                $($field.write(out);)*
            }

            fn read(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
                $(let $field = Wire::read(input)?;)*
                Ok(Self { $($field),* })
            }

            #[cfg(test)]
            fn sample(entropy: &mut wire::Entropy<'_>) -> Self {
                Self { $($field: Wire::sample(entropy)),* }
            }
        }
    };
}

/// An enum: a tag of one byte, then the variant's fields in order.
macro_rules! wire_enum {
    ($name:ident { $($tag:literal => $variant:ident { $($field:tt $(: $binding:ident)?),* }),* $(,)? }) => {
        impl Wire for $name {
            fn write(&self, out: &mut Vec<u8>) {
                match self {
                    $(Self::$variant { $($field $(: $binding)?),* } => {
                        u8::write(&$tag, out);
                        $(wire::binding!($field $($binding)?).write(out);)*
                    })*
                }
            }

            fn read(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
                match u8::read(input)? {
                    $($tag => Ok(Self::$variant { $($field: Wire::read(input)?),* }),)*
                    tag => Err(DecodeError::UnknownTag(tag)),
                }
            }

            #[cfg(test)]
            fn sample(entropy: &mut wire::Entropy<'_>) -> Self {
                let variants = [$($tag as u8),*];
                match variants[usize::from(entropy.byte()) % variants.len()] {
                    $($tag => Self::$variant { $($field: Wire::sample(entropy)),* },)*
                    _ => unreachable!("one of the tags was drawn"),
                }
            }
        }
    };
}

/// An enum of frames: each variant has a type and, so far, version 1.
macro_rules! wire_frames {
    ($name:ident { $($kind:literal => $variant:ident { $($field:tt $(: $binding:ident)?),* }),* $(,)? }) => {
        impl Wire for $name {
            fn write(&self, out: &mut Vec<u8>) {
                match self {
                    $(Self::$variant { $($field $(: $binding)?),* } => wire::write_frame($kind, 1, out, |_out| {
                        $(wire::binding!($field $($binding)?).write(_out);)*
                    }),)*
                }
            }

            fn read(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
                let kind = u16::read(input)?;
                let version = u8::read(input)?;
                let length = u32::read(input)?;
                let mut body = Reader::new(input.take(usize::try_from(length).map_err(|_| DecodeError::Truncated)?)?);
                if version == 0 {
                    return Err(DecodeError::UnknownVersion(version));
                }
                let value = match kind {
                    $($kind => Self::$variant { $($field: Wire::read(&mut body)?),* },)*
                    _ => return Err(DecodeError::UnknownType(kind)),
                };
                if version == 1 {
                    body.finish()?;
                }
                Ok(value)
            }

            #[cfg(test)]
            fn sample(entropy: &mut wire::Entropy<'_>) -> Self {
                let kinds = [$($kind as u16),*];
                match kinds[usize::from(entropy.byte()) % kinds.len()] {
                    $($kind => Self::$variant { $($field: Wire::sample(entropy)),* },)*
                    _ => unreachable!("one of the types was drawn"),
                }
            }
        }
    };
}

/// The variable that holds a variant's field: that of the field's name, unless the field is a tuple's.
macro_rules! binding {
    ($field:ident) => {
        $field
    };
    ($field:tt $binding:ident) => {
        $binding
    };
}

pub(super) use {binding, wire_enum, wire_frames, wire_struct};
