// Aligned memory for weights and work space.
#pragma once

#include <cstddef>
#include <cstdint>
#include <new>

namespace tidegate {

// Memory of `bytes`, aligned to 64 bytes, in huge pages where it is large (a packed 16 MiB matrix
// spans 4096 ordinary pages, more than the TLB holds). Given back, it is kept for the next call of
// about that size: a training step must not pay for fresh pages every time. Contents are arbitrary.
// Throws std::bad_alloc.
void* take_memory(size_t bytes);
void give_memory(void* memory, size_t bytes) noexcept;

template <class T>
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(int64_t size) { resize(size); }
  ~Buffer() { release(); }
  Buffer(Buffer&& other) noexcept : data_(other.data_), size_(other.size_) {
    other.data_ = nullptr, other.size_ = 0;
  }
  Buffer& operator=(Buffer&& other) noexcept {
    if (this != &other) {
      release();
      data_ = other.data_, size_ = other.size_;
      other.data_ = nullptr, other.size_ = 0;
    }
    return *this;
  }
  void resize(int64_t size) {  // contents are lost
    release();
    if (size <= 0) return;
    if (static_cast<uint64_t>(size) > SIZE_MAX / 2 / sizeof(T)) throw std::bad_alloc();
    data_ = static_cast<T*>(take_memory(static_cast<size_t>(size) * sizeof(T)));
    size_ = size;
  }
  T* data() const { return data_; }
  int64_t size() const { return size_; }

 private:
  void release() noexcept {
    if (data_) give_memory(data_, static_cast<size_t>(size_) * sizeof(T));
    data_ = nullptr, size_ = 0;
  }
  T* data_ = nullptr;
  int64_t size_ = 0;
};

}  // namespace tidegate
