// The generators of random numbers that live in this process, where every copy of the machine would draw the same from
// them: `Math.random` gets one that can be seeded anew, and `crypto` draws from Linux, whose own is seeded by others.
"use strict";

const crypto = require("node:crypto");
const fs = require("node:fs");

const state = new Int32Array(4);

/** Seeds `Math.random` from Linux. */
function reseed() {
  fill(new Uint8Array(state.buffer));
  // All zero would stay zero.
  state[0] |= 1;
}

/** The generator xoshiro128**: 32 bits. */
function draw() {
  const turned = (word, by) => (word << by) | (word >>> (32 - by));
  const result = Math.imul(turned(Math.imul(state[1], 5), 7), 9);
  const kept = state[1] << 9;
  state[2] ^= state[0];
  state[3] ^= state[1];
  state[1] ^= state[2];
  state[0] ^= state[3];
  state[2] ^= kept;
  state[3] = turned(state[3], 11);
  return result >>> 0;
}

function fill(bytes) {
  const source = fs.openSync("/dev/urandom", "r");
  for (let at = 0; at < bytes.byteLength; ) {
    at += fs.readSync(source, bytes, at, bytes.byteLength - at);
  }
  fs.closeSync(source);
  return bytes;
}

const bytesOf = (data) =>
  ArrayBuffer.isView(data) ? new Uint8Array(data.buffer, data.byteOffset, data.byteLength) : new Uint8Array(data);
const bytes = (size) => fill(Buffer.alloc(size));

/** Calls back with what `work` gives, or throws. */
function later(work, callback) {
  let value;
  try {
    value = work();
  } catch (error) {
    process.nextTick(callback, error);
    return;
  }
  process.nextTick(callback, null, value);
}

function fillSync(data, offset = 0, size = bytesOf(data).length - offset) {
  fill(bytesOf(data).subarray(offset, offset + size));
  return data;
}

function between(low, high) {
  const range = high - low;
  if (!Number.isSafeInteger(low) || !Number.isSafeInteger(high) || range <= 0 || range >= 2 ** 48) {
    throw new RangeError(`randomInt: ${low} to ${high} is no range of less than 2 ** 48 whole numbers`);
  }
  const most = 2 ** 48 - (2 ** 48 % range);
  for (;;) {
    const number = bytes(6).readUIntBE(0, 6);
    if (number < most) return low + (number % range);
  }
}

function uuid() {
  const drawn = bytes(16);
  drawn[6] = (drawn[6] & 0x0f) | 0x40;
  drawn[8] = (drawn[8] & 0x3f) | 0x80;
  return drawn.toString("hex").replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}

function replace(object, name, value) {
  Object.defineProperty(object, name, { value, writable: true, configurable: true, enumerable: true });
}

function install() {
  const drawn = (size, callback) => (callback ? later(() => bytes(size), callback) : bytes(size));
  const own = {
    randomBytes: drawn,
    pseudoRandomBytes: drawn,
    randomFillSync: fillSync,
    randomFill: (data, ...rest) => {
      const callback = rest.pop();
      later(() => fillSync(data, ...rest), callback);
    },
    randomInt: (...given) => {
      const callback = typeof given.at(-1) === "function" ? given.pop() : null;
      const [low, high] = given.length === 1 ? [0, given[0]] : given;
      return callback ? later(() => between(low, high), callback) : between(low, high);
    },
    randomUUID: uuid,
    getRandomValues: (data) => fillSync(data),
  };
  for (const name of ["randomUUID", "getRandomValues"]) replace(crypto.webcrypto, name, own[name]);
  for (const [name, value] of Object.entries(own)) {
    // What cannot be replaced asks the one above.
    if (Object.getOwnPropertyDescriptor(crypto, name).configurable) replace(crypto, name, value);
  }
  try {
    // Keys are made by the library below, which then asks the processor.
    crypto.setEngine("rdrand", crypto.constants.ENGINE_METHOD_RAND);
  } catch {
    // A processor or a build without it: nothing but keys is drawn there.
  }
  // 53 bits, as many as a number between 0 and 1 has.
  Math.random = () => ((draw() >>> 5) * 2 ** 26 + (draw() >>> 6)) / 2 ** 53;
  reseed();
}

module.exports = { install, reseed };
