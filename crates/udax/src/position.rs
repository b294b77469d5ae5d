//! Reading and writing a file as a stream: the position of a handle, and the traits of `std::io`.

use std::io::{self, Read, Seek, SeekFrom, Write};

use crate::error::{Cause, Error};
use crate::file::File;
use crate::range::byte_count;

impl Read for &File {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let mut position = self.position();
        let read = self.read_at(into, *position)?;
        *position += byte_count(read);
        Ok(read)
    }
}

impl Write for &File {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut position = self.position();
        if self.is_append() {
            *position = self.append(bytes)? + byte_count(bytes.len());
            return Ok(bytes.len());
        }
        let written = self.write_at(bytes, *position)?;
        *position += byte_count(written);
        Ok(written)
    }

    /// Does nothing: a write is in the pool when it returns.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for &File {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let mut position = self.position();
        let (base, by) = match to {
            SeekFrom::Start(at) => (at, 0),
            SeekFrom::Current(by) => (*position, by),
            SeekFrom::End(by) => (self.metadata().len(), by),
        };
        let Some(at) = base.checked_add_signed(by) else {
            let cause = Cause::InvalidInput("a position before the start of the file");
            return Err(Error::new(self.path(), cause).into());
        };
        *position = at;
        Ok(at)
    }
}

impl Read for File {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        (&*self).read(into)
    }
}

impl Write for File {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (&*self).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        (&*self).flush()
    }
}

impl Seek for File {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        (&*self).seek(to)
    }
}
