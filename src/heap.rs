//! The programs' heap: changes with what copying between two places on it costs.
//!
//! glibc before 2.40 copies more than about 2 KiB with `rep movsb`. AMD's Zen takes many times as
//! long for that where the destination, within its page, lies up to 15 bytes behind the source
//! (glibc's bug 30994). A buffer whose size is a power of two and the next one on the heap are 16
//! bytes more than whole pages apart, and TLS copies what it has decrypted from byte 5 of the one,
//! behind a record's header, to the start of the other: 11 bytes behind.

use std::alloc::{GlobalAlloc, Layout, System};
use std::ptr;

/// What large buffers are longer by than was asked for, in bytes: two lines of a cache.
const SPACING: usize = 128;

/// From so many bytes on: a page.
const LARGE: usize = 4 << 10;

/// The system's allocator, with large buffers spaced so that neighbours do not begin at nearly the
/// same place of a page.
pub(crate) struct Spaced;

fn spaced(layout: Layout) -> Option<Layout> {
    let spacing = if layout.size() < LARGE { 0 } else { SPACING };
    Layout::from_size_align(layout.size() + spacing, layout.align()).ok()
}

// SAFETY: every call is passed on to the system's allocator with a layout that is a function of the
// caller's alone, of the same alignment and at least its size. So what is freed or resized is
// described as it was when it was allocated, and whoever keeps `GlobalAlloc`'s promises here keeps
// them there. Where the longer layout cannot exist, nothing is allocated.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Spaced {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        spaced(layout).map_or(ptr::null_mut(), |layout| unsafe { System.alloc(layout) })
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        spaced(layout).map_or(ptr::null_mut(), |layout| unsafe { System.alloc_zeroed(layout) })
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above; it was allocated, so the longer layout exists.
        unsafe { System.dealloc(pointer, spaced(layout).unwrap_or(layout)) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let wanted = Layout::from_size_align(size, layout.align()).ok().and_then(spaced);
        let (Some(layout), Some(wanted)) = (spaced(layout), wanted) else { return ptr::null_mut() };
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, wanted.size()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_begin_at_different_places_of_a_page() {
        for size in [LARGE, 8 << 10, 16 << 10, 32 << 10, 128 << 10] {
            let longer = spaced(Layout::array::<u8>(size).unwrap()).unwrap();
            // With the 16 bytes in which glibc keeps a buffer's length.
            assert!((64..LARGE - 64).contains(&((longer.size() + 16) % LARGE)), "{size}");
        }
    }

    #[test]
    fn buffers_keep_what_is_in_them_however_they_are_resized() {
        // This is the allocator of the tests too.
        for alignment in [1, 16, 64, 8192] {
            let sizes = [1, LARGE - 1, LARGE, 100 << 10, 1 << 20, LARGE, 100, 300 << 10, LARGE - 1];
            let layout = |size| Layout::from_size_align(size, alignment).unwrap();
            // SAFETY: no size is 0, every layout is the one of the last allocation, and reads stay
            // within both sizes.
            #[allow(unsafe_code)]
            unsafe {
                let mut pointer = Spaced.alloc_zeroed(layout(sizes[0]));
                *pointer = 7;
                for pair in sizes.windows(2) {
                    let (old, new) = (pair[0], pair[1]);
                    *pointer.add(old - 1) = if old == 1 { 7 } else { 9 };
                    pointer = Spaced.realloc(pointer, layout(old), new);
                    assert_eq!(pointer.addr() % alignment, 0);
                    assert_eq!(*pointer, 7);
                    if new >= old {
                        assert_eq!(*pointer.add(old - 1), if old == 1 { 7 } else { 9 });
                    }
                    pointer.add(1).write_bytes(8, new - 1);
                }
                Spaced.dealloc(pointer, layout(LARGE - 1));
            }
        }
    }

    #[test]
    fn what_cannot_exist_is_not_allocated() {
        let most = Layout::from_size_align(isize::MAX as usize, 1).unwrap();
        assert_eq!(spaced(most), None);
        let one = Layout::new::<u8>();
        // SAFETY: the layouts are valid ones, and what was allocated is freed as it was allocated.
        #[allow(unsafe_code)]
        unsafe {
            assert!(Spaced.alloc(most).is_null() && Spaced.alloc_zeroed(most).is_null());
            let pointer = Spaced.alloc(one);
            assert!(Spaced.realloc(pointer, one, most.size()).is_null());
            Spaced.dealloc(pointer, one);
        }
    }
}
