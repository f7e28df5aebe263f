// What the passes share: maps with channels last in memory, float32 or bfloat16, read and written
// sixteen channels at a time; every sum is taken in float32 or wider.
//
// The lanes are the compilers' own vector extension (GCC, Clang), so the same lines become AVX-512,
// AVX2 or NEON.
#pragma once
#include <torch/extension.h>
#include <omp.h>
#ifdef __AVX512F__
#include <immintrin.h>
#endif
#include <cstring>
#include <vector>

using at::Tensor;

constexpr int64_t kLanes = 16;

typedef float Lanes __attribute__((vector_size(4 * kLanes), may_alias));
typedef uint32_t Words __attribute__((vector_size(4 * kLanes)));
typedef uint16_t Halves __attribute__((vector_size(2 * kLanes)));

// bfloat16 is the upper half of a float32.
struct Half { uint16_t bits; };

template <typename To, typename From>
inline To as(const From& from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}

inline Lanes load(const float* p) {
  Lanes v;
  std::memcpy(&v, p, sizeof v);
  return v;
}

inline Lanes load(const Half* p) {
  Halves h;
  std::memcpy(&h, p, sizeof h);
#ifdef __AVX512F__  // one instruction, for which GCC 12 makes six
  return as<Lanes>(as<Words>(_mm512_cvtepu16_epi32(as<__m256i>(h))) << 16);
#else
  return as<Lanes>(__builtin_convertvector(h, Words) << 16);
#endif
}

inline void store(float* p, Lanes v) { std::memcpy(p, &v, sizeof v); }

// To the nearest, ties to even.
inline void store(Half* p, Lanes v) {
#ifdef __AVX512BF16__
  const __m256bh rounded = _mm512_cvtneps_pbh(as<__m512>(v));
  std::memcpy(p, &rounded, sizeof rounded);
#else
  Words w = as<Words>(v);
  w += 0x7fff + ((w >> 16) & 1);
  const Halves h = __builtin_convertvector(w >> 16, Halves);
  std::memcpy(p, &h, sizeof h);
#endif
}

// Zeroed floats, a multiple of kLanes of them, that begin where a cache line does.
class Floats {
 public:
  explicit Floats(int64_t count) : lanes_(count / kLanes) {}
  float* data() { return reinterpret_cast<float*>(lanes_.data()); }
  void clear() { std::fill(lanes_.begin(), lanes_.end(), Lanes{}); }

 private:
  std::vector<Lanes> lanes_;
};

inline Lanes positive(Lanes v) { return v > 0 ? v : v - v; }
inline Lanes negative(Lanes v) { return v < 0 ? v : v - v; }

struct Map {
  int64_t images, channels, height, width;
  int64_t rows() const { return images * height * width; }
};

inline Map map_of(const Tensor& x) {
  TORCH_CHECK(x.dim() == 4 && x.is_contiguous(at::MemoryFormat::ChannelsLast) &&
                  (x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16) &&
                  x.size(1) % kLanes == 0,
              "a float32 or bfloat16 map (B, C, H, W) with channels last in memory and C a multiple of ",
              kLanes, " is expected, not ", x.scalar_type(), " ", x.sizes());
  return {x.size(0), x.size(1), x.size(2), x.size(3)};
}

template <typename T>
T* data(const Tensor& x) { return static_cast<T*>(x.data_ptr()); }

// Calls work(T()) with the type of the map's elements.
template <typename Work>
auto by_type(const Tensor& x, Work work) {
  return x.scalar_type() == at::kBFloat16 ? work(Half()) : work(float());
}

// Splits `count` things among threads, work(thread, from, until); the same for the same threads.
template <typename Work>
void in_threads(int64_t count, Work work) {
  const int threads = at::get_num_threads();
#pragma omp parallel for num_threads(threads) schedule(static, 1)
  for (int t = 0; t < threads; ++t) work(t, count * t / threads, count * (t + 1) / threads);
}

// Sums of `width` floats that add(from, until, sums) adds to, block by block, as doubles.
template <typename Add>
std::vector<double> sums(int64_t count, int64_t width, int64_t block, Add add) {
  std::vector<std::vector<double>> partial(at::get_num_threads(), std::vector<double>(width, 0.0));
  in_threads(count, [&](int t, int64_t begin, int64_t end) {
    Floats kept(width);
    for (int64_t from = begin; from < end; from += block) {
      kept.clear();
      add(from, std::min(from + block, end), kept.data());
      for (int64_t i = 0; i < width; ++i) partial[t][i] += kept.data()[i];
    }
  });
  for (size_t t = 1; t < partial.size(); ++t)
    for (int64_t i = 0; i < width; ++i) partial[0][i] += partial[t][i];
  return partial[0];
}
