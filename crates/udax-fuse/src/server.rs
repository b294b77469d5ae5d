//! The server: one method for each request of the kernel, each a call of the filesystem.
//!
//! A file is named by its inode number alone, because the kernel keeps the inode of an open file
//! known. What an open file adds is that it may not be frozen while it is open for writing.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use fuser::{
    AccessFlags, BsdFileFlags, CopyFileRangeFlags, Errno, FileAttr, FileHandle, FopenFlags,
    Generation, INodeNo, InitFlags, KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr,
    ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyLseek,
    ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};
use udax::fs::{Filesystem, FsError, Inode, Kind, Name, SetAttr};
use udax::{FreePolicy, Pool};
use udax_mm::sync::Arc;

use crate::attr::{to_kernel, to_nanos};
use crate::errno::errno;
use crate::handles::Handles;
use crate::opened::{FOR_READING, Opened, is_for_writing};
use crate::ops::{self, Fallocate, New};

/// How long the kernel may trust a name or attributes without asking. It sees its own changes at
/// once; this bounds how long it misses those made through the pool itself. Of stores through mappings
/// of the pool, and by devices, it counts from the sync or flush that finds them.
pub(crate) const TTL: Duration = Duration::from_secs(1);

/// The most bytes of one write.
const MAX_WRITE: u32 = 1 << 20;

/// What serves one mount.
#[derive(Debug)]
pub(crate) struct Server {
    // Dropped first: the last handle of a file without a name frees it, for which the pool is open.
    // The kernel does not tell of each if the connection is cut off.
    opened: Opened,
    handles: Handles,
    pool: Pool,
}

impl Server {
    pub(crate) fn new(pool: Pool) -> Server {
        Server { opened: Opened::default(), handles: Handles::default(), pool }
    }

    pub(crate) fn fs(&self) -> &Filesystem {
        self.pool.filesystem()
    }

    pub(crate) fn find(&self, ino: INodeNo) -> Result<Arc<Inode>, Errno> {
        self.handles.find(self.fs(), ino)
    }

    /// Runs `call` on an inode.
    fn on<T>(
        &self,
        ino: INodeNo,
        call: impl FnOnce(&Arc<Inode>) -> Result<T, FsError>,
    ) -> Result<T, Errno> {
        call(&self.find(ino)?).map_err(|error| errno(&error))
    }

    /// Runs `call` on a directory and a name in it.
    fn on_name<T>(
        &self,
        dir: INodeNo,
        name: &OsStr,
        call: impl FnOnce(&Arc<Inode>, &Name) -> Result<T, FsError>,
    ) -> Result<T, Errno> {
        self.on(dir, |dir| call(dir, &Name::new(name)?))
    }

    /// Makes a file or directory for the caller.
    fn make<T>(
        &self,
        req: &Request,
        dir: INodeNo,
        name: &OsStr,
        mode: u32,
        make: impl FnOnce(&New<'_>) -> Result<T, FsError>,
    ) -> Result<T, Errno> {
        let (uid, gid) = (req.uid(), req.gid());
        self.on(dir, |dir| make(&New { dir, name, mode, uid, gid }))
    }

    /// Tells the kernel of an inode it asked for or made.
    pub(crate) fn tell(&self, inode: &Arc<Inode>) -> (FileAttr, Generation) {
        self.handles.tell(inode);
        let attr = inode.attr();
        (to_kernel(&attr), Generation(u64::from(attr.generation)))
    }

    /// Opens a file as `flags` say.
    fn open_as(&self, inode: &Arc<Inode>, flags: i32) -> Result<FileHandle, FsError> {
        if !is_for_writing(flags) {
            return Ok(FOR_READING);
        }
        inode.write_access().map(|access| self.opened.open(access))
    }

    fn reply_entry(&self, reply: ReplyEntry, found: Result<Arc<Inode>, Errno>) {
        match found {
            Ok(inode) => {
                let (attr, generation) = self.tell(&inode);
                reply.entry(&TTL, &attr, generation);
            }
            Err(errno) => reply.error(errno),
        }
    }
}

/// Answers a request that has no result but success.
fn reply_empty(reply: ReplyEmpty, done: Result<(), Errno>) {
    match done {
        Ok(()) => reply.ok(),
        Err(errno) => reply.error(errno),
    }
}

/// Answers a request for attributes.
fn reply_attr(reply: ReplyAttr, found: Result<udax::fs::Attr, Errno>) {
    match found {
        Ok(attr) => reply.attr(&TTL, &to_kernel(&attr)),
        Err(errno) => reply.error(errno),
    }
}

// The parameters are those of the kernel's requests.
#[allow(clippy::too_many_arguments)]
impl fuser::Filesystem for Server {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // What an older kernel does not know, it does without.
        let wanted = [
            InitFlags::FUSE_AUTO_INVAL_DATA,
            InitFlags::FUSE_DO_READDIRPLUS,
            InitFlags::FUSE_READDIRPLUS_AUTO,
            InitFlags::FUSE_PARALLEL_DIROPS,
            InitFlags::FUSE_CACHE_SYMLINKS,
        ];
        for flag in wanted {
            let _ = config.add_capabilities(flag);
        }
        config.set_max_write(MAX_WRITE).map(drop).map_err(|nearest| {
            io::Error::other(format!("the kernel takes writes of at most {nearest} bytes"))
        })
    }

    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let found = self.on_name(parent, name, |dir, name| self.fs().lookup(dir, name));
        self.reply_entry(reply, found);
    }

    fn forget(&self, _req: &Request, ino: INodeNo, nlookup: u64) {
        self.handles.forget(ino, nlookup);
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        reply_attr(reply, self.on(ino, |inode| Ok(inode.attr())));
    }

    fn setattr(
        &self,
        _req: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let mode = mode.map(|mode| mode & 0o7777);
        let (atime, mtime) = (atime.map(to_nanos), mtime.map(to_nanos));
        let set = SetAttr { mode, uid, gid, atime, mtime };
        let done = self.on(ino, |inode| {
            if let Some(size) = size {
                inode.truncate(size, FreePolicy::Defer)?;
            }
            inode.set_attr(&set)
        });
        reply_attr(reply, done);
    }

    fn readlink(&self, _req: &Request, ino: INodeNo, reply: ReplyData) {
        match self.on(ino, |inode| inode.read_link()) {
            Ok(target) => reply.data(&target),
            Err(errno) => reply.error(errno),
        }
    }

    fn mknod(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        _rdev: u32,
        reply: ReplyEntry,
    ) {
        if ![0, libc::S_IFREG].contains(&(mode & libc::S_IFMT)) {
            return reply.error(Errno::EOPNOTSUPP);
        }
        let make = |new: &New<'_>| ops::create(self.fs(), new, Kind::File);
        self.reply_entry(reply, self.make(req, parent, name, mode & !umask, make));
    }

    fn mkdir(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        reply: ReplyEntry,
    ) {
        let make = |new: &New<'_>| ops::create(self.fs(), new, Kind::Dir);
        self.reply_entry(reply, self.make(req, parent, name, mode & !umask, make));
    }

    fn unlink(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        reply_empty(reply, self.on_name(parent, name, |dir, name| self.fs().unlink(dir, name)));
    }

    fn rmdir(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        reply_empty(reply, self.on_name(parent, name, |dir, name| self.fs().rmdir(dir, name)));
    }

    fn symlink(
        &self,
        req: &Request,
        parent: INodeNo,
        link_name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        let target = target.as_os_str().as_bytes();
        let made = self.on_name(parent, link_name, |dir, name| {
            self.fs().symlink(dir, name, target, req.uid(), req.gid())
        });
        self.reply_entry(reply, made);
    }

    fn rename(
        &self,
        _req: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let done = ops::rename_mode(flags).and_then(|mode| {
            let to_dir = self.find(newparent)?;
            self.on_name(parent, name, |dir, name| {
                self.fs().rename(dir, name, &to_dir, &Name::new(newname)?, mode)
            })
        });
        reply_empty(reply, done);
    }

    fn link(
        &self,
        _req: &Request,
        ino: INodeNo,
        newparent: INodeNo,
        newname: &OsStr,
        reply: ReplyEntry,
    ) {
        let linked = self.find(ino).and_then(|inode| {
            self.on_name(newparent, newname, |dir, name| self.fs().link(&inode, dir, name))?;
            Ok(inode)
        });
        self.reply_entry(reply, linked);
    }

    fn open(&self, _req: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        match self.on(ino, |inode| self.open_as(inode, flags.0)) {
            // The kernel made most changes of what it has cached itself. Of others the time of the
            // file tells, which it asks for once the attributes are too old.
            Ok(handle) => reply.opened(handle, FopenFlags::FOPEN_KEEP_CACHE),
            Err(errno) => reply.error(errno),
        }
    }

    fn create(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let made = self.make(req, parent, name, mode & !umask, |new| {
            let inode = ops::create(self.fs(), new, Kind::File)?;
            let handle = self.open_as(&inode, flags)?;
            Ok((inode, handle))
        });
        match made {
            Ok((inode, handle)) => {
                let (attr, generation) = self.tell(&inode);
                reply.created(&TTL, &attr, generation, handle, FopenFlags::FOPEN_KEEP_CACHE);
            }
            Err(errno) => reply.error(ops::refusal_to_create(errno, flags)),
        }
    }

    fn read(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let mut bytes = vec![0; usize::try_from(size).expect("a request fits in memory")];
        match self.on(ino, |inode| ops::read_full(inode, &mut bytes, offset)) {
            Ok(read) => reply.data(&bytes[..read]),
            Err(errno) => reply.error(errno),
        }
    }

    fn write(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        // A page that a mapping wrote knows where it belongs, however the file was opened.
        let is_append =
            flags.0 & libc::O_APPEND != 0 && !write_flags.contains(WriteFlags::FUSE_WRITE_CACHE);
        let written = self.on(ino, |inode| {
            if is_append {
                inode.append(data).map(|_| data.len())
            } else {
                inode.write_at(data, offset)
            }
        });
        match written {
            Ok(len) => reply.written(u32::try_from(len).expect("no longer than the request")),
            Err(errno) => reply.error(errno),
        }
    }

    fn flush(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _lock_owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        reply.ok();
    }

    fn release(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        self.opened.release(fh);
        reply.ok();
    }

    fn fsync(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        reply_empty(reply, self.on(ino, |inode| inode.sync()));
    }

    fn readdir(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        match self.fill(ino, offset, &mut reply) {
            Ok(()) => reply.ok(),
            Err(errno) => reply.error(errno),
        }
    }

    fn readdirplus(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        match self.fill_plus(ino, offset, &mut reply) {
            Ok(()) => reply.ok(),
            Err(errno) => reply.error(errno),
        }
    }

    fn fsyncdir(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        reply_empty(reply, self.on(ino, |_| self.fs().sync()));
    }

    fn statfs(&self, _req: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        let usage = self.fs().usage();
        let (total, free) = (usage.total.0, usage.free.0);
        // Inodes come out of the free pages, sixteen from each.
        let free_inodes = free * 16;
        let (page, name) = (4096, 255);
        reply.statfs(total, free, free, usage.inodes + free_inodes, free_inodes, page, name, page);
    }

    fn access(&self, _req: &Request, _ino: INodeNo, _mask: AccessFlags, reply: ReplyEmpty) {
        // The kernel checks permissions itself (default_permissions).
        reply.ok();
    }

    fn fallocate(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let done = Fallocate::from_mode(mode)
            .and_then(|what| self.on(ino, |inode| what.run(inode, offset, length)));
        reply_empty(reply, done);
    }

    fn lseek(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        let found = u64::try_from(offset).map_err(|_| Errno::ENXIO).and_then(|at| {
            let found = ops::seek(&*self.find(ino)?, at, whence)?;
            i64::try_from(found).map_err(|_| Errno::EOVERFLOW)
        });
        match found {
            Ok(at) => reply.offset(at),
            Err(errno) => reply.error(errno),
        }
    }

    fn copy_file_range(
        &self,
        _req: &Request,
        ino_in: INodeNo,
        _fh_in: FileHandle,
        offset_in: u64,
        ino_out: INodeNo,
        _fh_out: FileHandle,
        offset_out: u64,
        len: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        // The reply counts in 32 bits; the caller asks again for the rest.
        let len = len.min(1 << 30);
        let copied = self.find(ino_out).and_then(|to| {
            self.on(ino_in, |from| ops::copy(from, offset_in, &to, offset_out, len))
        });
        match copied {
            Ok(len) => reply.written(u32::try_from(len).expect("at most a GiB")),
            Err(errno) => reply.error(errno),
        }
    }
}
