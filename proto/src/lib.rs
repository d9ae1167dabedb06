//! The labsh protocol.
#![no_std]
