"""Config of a run: its objective, optimiser and loop; and `Config`, the whole of it."""

import dataclasses

from coca_jax.config.data import DataConfig
from coca_jax.config.evaluation import EvaluationConfig
from coca_jax.config.fields import choice, count, location, number
from coca_jax.config.model import ModelConfig


@dataclasses.dataclass(frozen=True)
class PretrainingConfig:
    """Weights of the paper's Eq. 4 and of two optional losses; a weight of 0 removes that branch's compute."""

    contrastive_weight: float = number(1.0, at_least=0)
    captioning_weight: float = number(2.0, at_least=0)
    unimodal_language_model_weight: float = number(0.0, at_least=0)
    prefix_captioning: bool = False  # give a random prefix of each caption, count only its continuation
    initial_temperature: float = number(0.07, above=0)


@dataclasses.dataclass(frozen=True)
class HeadConfig:
    """Settings of the objectives with a head: classification, entailment, pairs, vqa."""

    # Peak for the parameters that come from pretraining; 0: they are frozen. The head's is optimizer.peak_learning_rate.
    encoder_learning_rate: float = number(0.0, at_least=0)
    # Of vqa, entailment and pairs: the image encoder is frozen while the rest learns (arXiv 2111.07991), at half the work.
    lock_image_encoder: bool = False
    label_smoothing: float = number(0.0, at_least=0, below=1)  # not for the soft targets of vqa
    # 0: those of the training data. Of vqa: at most so many answers, the most frequent; 0: 3,129.
    classes: int = count(0, 0)
    frame_positions: bool = False  # of clips: learned position embeddings tell the pooler the order of the frames


@dataclasses.dataclass(frozen=True)
class StatementsConfig:
    """Whether a text is true of an image (entailment) or of two (pairs)."""

    # Of the captioning loss of the texts that are true of their images, beside that of the classes; the paper has none.
    generative_weight: float = number(0.0, at_least=0)


@dataclasses.dataclass(frozen=True)
class VqaConfig:
    """Questions about an image: weights of the losses of the classifier, and of generating question and answer."""

    classifier_weight: float = number(1.0, at_least=0)
    generative_weight: float = number(1.0, at_least=0)


@dataclasses.dataclass(frozen=True)
class CaptioningFinetuningConfig:
    """Weights of the losses of captioning; with a contrastive weight of 0 what only embeddings use is frozen."""

    captioning_weight: float = number(1.0, above=0)
    contrastive_weight: float = number(0.0, at_least=0)


@dataclasses.dataclass(frozen=True)
class ObjectiveConfig:
    """The name of a run's objective, and the keys of each objective."""

    name: str = choice("pretraining", "classification", "vqa", "entailment", "pairs", "captioning")
    pretraining: PretrainingConfig = PretrainingConfig()
    head: HeadConfig = HeadConfig()
    statements: StatementsConfig = StatementsConfig()
    vqa: VqaConfig = VqaConfig()
    captioning: CaptioningFinetuningConfig = CaptioningFinetuningConfig()

    @property
    def has_head(self) -> bool:
        """Whether a head is trained on top of a pretrained model."""
        return self.name == "classification" or self.reads_text

    @property
    def reads_text(self) -> bool:
        """Whether its head reads a text with each example: a question, a hypothesis or a statement."""
        return self.name == "vqa" or self.reads_statement

    @property
    def reads_statement(self) -> bool:
        """Whether its text is a hypothesis or statement, which may be true of the images."""
        return self.name in ("entailment", "pairs")


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """The optimiser and its learning-rate schedule."""

    name: str = choice("adafactor", "adamw", "muon")
    peak_learning_rate: float = number(8e-4, at_least=0)
    warmup_fraction: float = number(0.02, at_least=0, below=1)  # of all steps
    warmup_steps: int = count(0, 0)  # instead of the fraction, which must then be 0
    schedule: str = choice("linear", "cosine", "constant")  # after the warm-up, to zero
    b1: float = number(0.9, at_least=0, below=1)
    b2: float = number(0.999, at_least=0, below=1)
    weight_decay: float = number(0.01, at_least=0)  # decoupled
    clip_norm: float = number(0.0, at_least=0)  # global gradient norm; 0: no clipping
    ema_decay: float = number(0.0, at_least=0, below=1)  # of the parameters that evaluations use; 0: no average


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """Devices along each mesh axis; their product is the number of devices."""

    data: int = count(0, 0)  # copies of the model; 0: all devices that the other axes leave
    fsdp: int = count(0, 0)  # devices that share one copy; 0: chosen, see distributed/mesh.py
    tensor: int = count(1)


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """The training loop."""

    steps: int = count(500_000)
    batch_size: int = count(65_536)  # pairs a step, over all devices
    microbatches: int = count(1)  # parts of the batch, worked through one after another with the same gradient
    init_from: str = location()  # a run's folder or checkpoint, whose parameters a new run starts from, at step 0
    # Of a frozen image encoder without augmentation: its tokens are kept in memory, and computed once for each record (of
    # a clip, of frames that are drawn once).
    cache_features: bool = False
    seed: int = number(0, at_least=0, below=2**32)
    log_every: int = count(10)
    checkpoint_every: int = count(1_000)
    keep_checkpoints: int = count(2)
    # A metric of the evaluations in the course of training, such as "folder/accuracy": the checkpoint with its highest value
    # is kept, too, and is the one that `load` and `evaluate` take. Empty: they take the last one.
    keep_best: str = ""
    evaluate_every: int = count(0, 0)  # 0: only after the last step
    evaluate_first: bool = False  # before the first step, too: what an adaptation starts from
    mesh: MeshConfig = MeshConfig()
    tensorboard: bool = True


@dataclasses.dataclass(frozen=True)
class Config:
    """Everything that a run is given."""

    model: ModelConfig = ModelConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    data: DataConfig = DataConfig()
    train: TrainConfig = TrainConfig()
    evaluation: EvaluationConfig = EvaluationConfig()

    @property
    def images_per_example(self) -> int:
        """The frames of a clip, or 2 of a pair; 0: an example is one image."""
        return 2 if self.objective.name == "pairs" else max(one.dataset.frames for one in self.data.sources.values())
