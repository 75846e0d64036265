"""How much less an alignment map costs when only the masked frame is computed anew.

One video of 32 frames of 224 px, random weights in the sizes of ViT-B/32, 13 x 13 places a frame: 5408 masked videos.
Naive: whole masked videos through the model, some of them, the time of the rest extrapolated. Ours: trainer.alignment,
the frames of the map one after the other, some or all of them. Seconds are of this process's processors on a CPU (other
work on the machine counts less so) and of the wall on a GPU, after a synchronisation.
What a mask changes is compared where both were computed. Exits with 1 when the two differ by a tenth of it, or in fp32
by more than 1e-5.
"""

from __future__ import annotations

import argparse
import sys
import time

import torch
from torch import Tensor
from transformers import CLIPConfig, CLIPModel

from trainer.alignment import Masking, SwappedFrames, masked, without_tf32
from trainer.model import VideoTextModel
from trainer.settings import read_model_settings
from trainer.towers import towers_of

TOLERANCE = 1e-5


def now_s(device: torch.device) -> float:
    """The clock, once all work is done."""
    if device.type != "cuda":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def naive(model: VideoTextModel, pixels_T3HW: Tensor, places: list[tuple[int, int]], n_iter: int) -> Tensor:
    """Vectors (R, D) of the video with its first frame masked at these places."""
    vectors = []
    for place in places:
        video_T3HW = pixels_T3HW.clone()
        video_T3HW[:1] = masked(pixels_T3HW[0], [place], Masking().patch_px)
        vectors.append(model.encode_video(video_T3HW[None], n_iter)[0])
    return torch.stack(vectors)


def main() -> int:
    """Time both and compare them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=32)
    parser.add_argument("--naive-videos", type=int, default=64, help="masked videos that are computed whole")
    parser.add_argument("--timed-frames", type=int, help="frames whose maps are computed (default: all)")
    parser.add_argument("--n-iter", type=int, default=3)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32", help="of our image tower")
    parser.add_argument("--batch-size", type=int, help="masked frames at a time (32 on a CPU, 169 on a GPU)")
    options = parser.parse_args()
    torch.manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    batch_size = options.batch_size or (169 if device.type == "cuda" else Masking.batch_size)
    masking = Masking(batch_size=batch_size, precision=options.precision)
    settings = read_model_settings("iam-recommended")
    model = VideoTextModel(settings, towers_of(CLIPModel(CLIPConfig()), settings.towers)).to(device).eval()
    frames = torch.randint(0, 256, (options.frames, 3, 224, 224), dtype=torch.uint8, device=device)
    places = masking.places(224, 224)
    timed_frames = min(options.timed_frames or options.frames, options.frames)
    with torch.inference_mode(), without_tf32():
        pixels = model.image_tower.normalised(frames)
        # not counted: the first of each is slower, on a GPU by far
        naive(model, pixels, places[:1], options.n_iter)
        chosen = places[: masking.batch_size]
        warm = SwappedFrames(model, pixels, options.n_iter, masking)
        warm.encode(0, masked(pixels[0], chosen, masking.patch_px))
        del warm
        unmasked_D = model.encode_video(pixels[None], options.n_iter)[0]
        started = now_s(device)
        whole = naive(model, pixels, places[: options.naive_videos], options.n_iter)
        naive_s = (now_s(device) - started) / len(whole) * options.frames * len(places)
        started = now_s(device)
        swapped = SwappedFrames(model, pixels, options.n_iter, masking)
        shared_s, started = now_s(device) - started, now_s(device)
        ours = []
        for frame in range(timed_frames):
            for first in range(0, len(places), masking.batch_size):
                chosen = places[first : first + masking.batch_size]
                ours.append(swapped.encode(frame, masked(pixels[frame], chosen, masking.patch_px)))
        ours_s = shared_s + (now_s(device) - started) / timed_frames * options.frames
    changes = unmasked_D - whole
    apart = (swapped.whole_D - torch.cat(ours)[: len(whole)] - changes).abs().max().item()
    change = changes.abs().max().item()
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"the CPU, {torch.get_num_threads()} threads"
    size = f"{options.frames} frames, {len(places)} places, #iter {options.n_iter}"
    print(f"torch {torch.__version__} on {name}; {size}, our image tower in {masking.precision}")
    print(f"naive {naive_s:.1f} s, from {len(whole)} of {options.frames * len(places)} masked videos")
    print(f"ours  {ours_s:.1f} s, from {timed_frames} of {options.frames} frames; of it shared by all {shared_s:.2f} s")
    print(f"ratio {naive_s / ours_s:.1f}; a mask changes the vector by up to {change:.1e}, off by up to {apart:.1e}")
    tolerance = min(TOLERANCE, change / 10) if masking.precision == "fp32" else change / 10
    return 0 if apart <= tolerance else 1


if __name__ == "__main__":
    sys.exit(main())
