#pragma once
// A tensor as operators see it, and how they are registered.
//
// torch::stable::Tensor asks libtorch again at each look at a size or dtype, allocates for sharing its handle, and
// TORCH_BOX copies each result's handle two or three times. That is half a microsecond for a call with two tensors,
// where all that libtorch does for the call takes three. So: a handle of one owner, with what is looked at most
// beside it, and a boxed call that moves handles. Both convert to torch::stable::Tensor where its functions are used.

#include <cstdint>
#include <optional>
#include <tuple>
#include <type_traits>
#include <utility>

#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

namespace cv {

using torch::headeronly::ScalarType;

class Tensor {
 public:
  Tensor() = default;  // none: to be assigned to

  // Takes the handle over. Sizes and strides stay where they are: nothing resizes a tensor that an operator holds.
  // Python's None comes as a tensor that is not defined; it has no type then, which every operator refuses.
  explicit Tensor(AtenTensorHandle handle) : handle_(handle) {
    bool defined = false;
    TORCH_ERROR_CODE_CHECK(aoti_torch_is_defined(handle, &defined));
    if (!defined) return;
    int32_t dtype = 0;
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_dtype(handle, &dtype));
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_dim(handle, &dim_));
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_sizes(handle, &sizes_));
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_strides(handle, &strides_));
    type_ = dtype == aoti_torch_dtype_float32()
                ? ScalarType::Float
                : torch::stable::detail::to<ScalarType>(torch::stable::detail::from(dtype));
  }

  Tensor(const torch::stable::Tensor& t) : Tensor(another(t.get())) {}
  operator torch::stable::Tensor() const { return torch::stable::Tensor(another(handle_)); }

  Tensor(const Tensor& t) : Tensor(t, t.handle_ == nullptr ? nullptr : another(t.handle_)) {}
  Tensor(Tensor&& t) noexcept : Tensor(t, t.release()) {}
  Tensor& operator=(Tensor t) noexcept {
    std::swap(handle_, t.handle_);
    sizes_ = t.sizes_, strides_ = t.strides_, dim_ = t.dim_, type_ = t.type_;
    return *this;
  }
  ~Tensor() {
    if (handle_ != nullptr) aoti_torch_delete_tensor_object(handle_);
  }

  AtenTensorHandle get() const { return handle_; }

  // The handle is the caller's; this tensor is none from here on.
  AtenTensorHandle release() noexcept { return std::exchange(handle_, nullptr); }

  ScalarType scalar_type() const { return type_; }
  int64_t dim() const { return dim_; }
  int64_t size(int64_t d) const { return sizes_[place(d)]; }
  int64_t stride(int64_t d) const { return strides_[place(d)]; }
  torch::headeronly::IntHeaderOnlyArrayRef sizes() const { return {sizes_, static_cast<size_t>(dim_)}; }

  int64_t numel() const {
    int64_t n = 1;
    for (int64_t d = 0; d < dim_; ++d) n *= sizes_[d];
    return n;
  }
  bool is_contiguous() const {
    bool result = false;
    TORCH_ERROR_CODE_CHECK(aoti_torch_is_contiguous(handle_, &result));
    return result;
  }
  int32_t device_type() const {
    int32_t type = 0;
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(handle_, &type));
    return type;
  }
  int32_t get_device_index() const {
    int32_t index = 0;
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_index(handle_, &index));
    return index;
  }
  torch::stable::Device device() const {
    using torch::stable::detail::from, torch::stable::detail::to;
    const auto type = to<torch::headeronly::DeviceType>(from(device_type()));
    return torch::stable::Device(type, static_cast<torch::stable::DeviceIndex>(get_device_index()));
  }
  bool is_cpu() const { return device_type() == aoti_torch_device_type_cpu(); }
  bool is_cuda() const { return device_type() == aoti_torch_device_type_cuda(); }

  const void* const_data_ptr() const {
    const void* data = nullptr;
    TORCH_ERROR_CODE_CHECK(torch_get_const_data_ptr(handle_, &data));
    return data;
  }
  void* mutable_data_ptr() const {
    void* data = nullptr;
    TORCH_ERROR_CODE_CHECK(torch_get_mutable_data_ptr(handle_, &data));
    return data;
  }
  template <typename T> const T* const_data_ptr() const {
    check_type<T>();
    return static_cast<const T*>(const_data_ptr());
  }
  template <typename T> T* mutable_data_ptr() const {
    check_type<T>();
    return static_cast<T*>(mutable_data_ptr());
  }

 private:
  // Another handle of the same tensor: sizes and strides lie in the tensor itself.
  Tensor(const Tensor& t, AtenTensorHandle handle)
      : handle_(handle), sizes_(t.sizes_), strides_(t.strides_), dim_(t.dim_), type_(t.type_) {}

  static AtenTensorHandle another(AtenTensorHandle handle) {
    AtenTensorHandle other = nullptr;
    TORCH_ERROR_CODE_CHECK(aoti_torch_new_tensor_handle(handle, &other));
    return other;
  }

  int64_t place(int64_t d) const {
    const int64_t at = d < 0 ? d + dim_ : d;
    STD_TORCH_CHECK(at >= 0 && at < dim_, "dimension ", d, " of a tensor that has ", dim_);
    return at;
  }

  template <typename T> void check_type() const {
    constexpr ScalarType wanted = torch::headeronly::CppTypeToScalarType<T>::value;
    STD_TORCH_CHECK(type_ == wanted, "expected scalar type ", torch::headeronly::toString(wanted), " but found ",
                    torch::headeronly::toString(type_));
  }

  AtenTensorHandle handle_ = nullptr;
  int64_t *sizes_ = nullptr, *strides_ = nullptr;
  int64_t dim_ = 0;
  ScalarType type_ = ScalarType::Undefined;
};

// --- boxed calls ------------------------------------------------------------------------------------

namespace boxing {

template <typename T> struct Argument {
  static T take(StableIValue v) { return torch::stable::detail::to<T>(v); }
};
template <> struct Argument<Tensor> {
  static Tensor take(StableIValue v) { return Tensor(torch::stable::detail::to<AtenTensorHandle>(v)); }
};
template <> struct Argument<std::optional<Tensor>> {
  static std::optional<Tensor> take(StableIValue v) {
    auto given = torch::stable::detail::to<std::optional<AtenTensorHandle>>(v);
    return given ? std::optional<Tensor>(Tensor(*given)) : std::nullopt;
  }
};

inline void put(StableIValue* stack, Tensor&& result) { *stack = torch::stable::detail::from(result.release()); }
template <typename... R> void put(StableIValue* stack, std::tuple<R...>&& results) {
  std::apply([&](auto&... result) { (put(stack++, std::move(result)), ...); }, results);
}

template <auto function> struct Boxed;
template <typename R, typename... A, R (*function)(A...)> struct Boxed<function> {
  static void call(StableIValue* stack, uint64_t count, uint64_t) {
    STD_TORCH_CHECK(count == sizeof...(A), "the schema has ", count, " arguments, the kernel ", sizeof...(A));
    call(stack, std::index_sequence_for<A...>{});
  }
  template <size_t... I> static void call(StableIValue* stack, std::index_sequence<I...>) {
    std::tuple<std::decay_t<A>...> arguments{Argument<std::decay_t<A>>::take(stack[I])...};
    put(stack, function(std::get<I>(arguments)...));
  }
};

}  // namespace boxing

// What m.impl() takes for a function of tensors, optional tensors and numbers that returns a tensor or a tuple of them.
#define CV_BOX(function) &cv::boxing::Boxed<(function)>::call

}  // namespace cv
