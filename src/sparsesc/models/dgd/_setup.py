"""What a deep generative decoder asks of the cells it is set up with, and reads back from their registry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scvi import REGISTRY_KEYS
from scvi.data import AnnDataManager, fields
from scvi.model.base import BaseModelClass

from sparsesc._values import check_choice, listing
from sparsesc.door import _checks as check

from ._cells import CellReader, check_values
from ._heads import HEADS
from ._module import EXPRESSION, values_key

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

INDICES = "_indices"  # column of obs: where the vector of a cell is


class DGDSetup(BaseModelClass):
    """Registration of AnnData and MuData, and what the registry holds: it is there without cells, too."""

    _likelihoods: dict[str, str]

    @classmethod
    def setup_anndata(
        cls,
        adata: AnnData,
        layer: str | None = None,
        batch_key: str | None = None,
        labels_key: str | None = None,
        categorical_covariate_keys: list[str] | None = None,
        **kwargs: Any,
    ) -> None:
        """Say where values and covariates are.

        Parameters
        ----------
        adata
            Cells x genes.
        layer
            Layer with the values. ``None``: ``X``.
        batch_key
            Column of ``obs`` with the batch.
        labels_key
            Column of ``obs`` with cell types: only their number is used, for `n_components`.
        categorical_covariate_keys
            More columns of ``obs`` that the latent space should not hold.
        **kwargs
            Passed on by scvi-tools when a saved model is loaded.
        """
        setup_method_args = cls._get_setup_method_args(**locals())
        adata.obs[INDICES] = np.arange(adata.n_obs)
        cls._register(
            adata,
            setup_method_args,
            [fields.LayerField(values_key(EXPRESSION), layer, is_count_data=False)],
            (fields.NumericalObsField, fields.CategoricalObsField, fields.CategoricalJointObsField),
            **kwargs,
        )

    @classmethod
    def setup_mudata(
        cls,
        mdata: MuData,
        layers: Mapping[str, str | None] | Sequence[str],
        batch_key: str | None = None,
        labels_key: str | None = None,
        categorical_covariate_keys: list[str] | None = None,
        **kwargs: Any,
    ) -> None:
        """Say which modalities take part, and where covariates are.

        Parameters
        ----------
        mdata
            Cells with several modalities, all of the same cells.
        layers
            Modalities, and the layer of each that has its values (``None``: its ``X``). The kind of values is said by
            `likelihood` of the model, for example ``{"rna": "nb", "atac": "bernoulli"}``.
        batch_key, labels_key, categorical_covariate_keys
            Columns of ``mdata.obs``, as in :meth:`setup_anndata`.
        **kwargs
            Passed on by scvi-tools when a saved model is loaded.
        """
        layers = dict(layers) if isinstance(layers, Mapping) else dict.fromkeys(layers)
        setup_method_args = cls._get_setup_method_args(**locals())
        missing = [name for name in layers if name not in mdata.mod]
        if missing or not layers:
            msg = f"layers must name modalities of mdata ({listing(mdata.mod)}), found {listing(layers)}."
            raise KeyError(msg)
        mdata.obs[INDICES] = np.arange(mdata.n_obs)
        cls._register(
            mdata,
            setup_method_args,
            [
                fields.MuDataLayerField(values_key(name), layer, is_count_data=False, mod_key=name, mod_required=True)
                for name, layer in layers.items()
            ],
            (fields.MuDataNumericalObsField, fields.MuDataCategoricalObsField, fields.MuDataCategoricalJointObsField),
            **kwargs,
        )

    @classmethod
    def _register(
        cls,
        adata: AnnData | MuData,
        setup_method_args: dict[str, Any],
        values: list[Any],
        kinds: tuple[Any, Any, Any],
        **kwargs: Any,
    ) -> None:
        """Register values and the columns of ``obs`` that were asked for."""
        numerical, categorical, joint = kinds
        asked = setup_method_args["setup_args"]
        found = [*values, numerical(REGISTRY_KEYS.INDICES_KEY, INDICES)]
        for registry_key, key in ((REGISTRY_KEYS.BATCH_KEY, "batch_key"), (REGISTRY_KEYS.LABELS_KEY, "labels_key")):
            if asked[key] is not None:
                check.get_obs_column(adata, asked[key])
                found.append(categorical(registry_key, asked[key]))
        if asked["categorical_covariate_keys"]:
            found.append(joint(REGISTRY_KEYS.CAT_COVS_KEY, asked["categorical_covariate_keys"]))
        manager = AnnDataManager(fields=found, setup_method_args=setup_method_args)
        manager.register_fields(adata, **kwargs)
        cls.register_manager(manager)

    def get_var_names(self, legacy_mudata_format: bool = False) -> Any:
        """Names of the features that the model has; by modality if there are several."""
        names = {name: found.to_numpy() for name, found in self._features.items()}
        if EXPRESSION in names:
            return names[EXPRESSION]
        return np.concatenate(list(names.values())) if legacy_mudata_format else names

    @property
    def _asked(self) -> dict[str, Any]:
        return self.registry["setup_args"]

    @property
    def _layers(self) -> dict[str, str | None]:
        return dict(self._asked["layers"]) if "layers" in self._asked else {EXPRESSION: self._asked["layer"]}

    def _state(self, key: str) -> dict[str, Any]:
        return self.registry["field_registries"][key]["state_registry"]

    @property
    def _features(self) -> dict[str, pd.Index]:
        return {name: pd.Index(self._state(values_key(name))["column_names"]).astype(str) for name in self._layers}

    @property
    def _covariates(self) -> dict[str, pd.Index]:
        """Labels by column of ``obs``, the batch first."""
        found = {}
        if self._asked["batch_key"] is not None:
            found[self._asked["batch_key"]] = self._state(REGISTRY_KEYS.BATCH_KEY)["categorical_mapping"]
        if self._asked["categorical_covariate_keys"]:
            found |= self._state(REGISTRY_KEYS.CAT_COVS_KEY)["mappings"]
        return {key: pd.Index(labels, dtype=object) for key, labels in found.items()}

    def _label_codes(self, adata: AnnData | MuData) -> np.ndarray:
        """Labels of cells, cells x covariates; -1 for those that the model does not have."""
        codes = [
            labels.get_indexer(check.get_obs_column(adata, key).to_numpy(dtype=object))
            for key, labels in self._covariates.items()
        ]
        return np.column_stack(codes) if codes else np.zeros((adata.n_obs, 0), dtype=np.int64)

    def _check_likelihoods(self, likelihood: str | Mapping[str, str]) -> dict[str, str]:
        """By modality."""
        names = list(self._layers)
        found = dict.fromkeys(names, likelihood) if isinstance(likelihood, str) else dict(likelihood)
        if set(found) != set(names):
            msg = f"likelihood must name the modalities {listing(names)}, found {listing(found)}."
            raise ValueError(msg)
        for name in names:
            check_choice(found[name], HEADS, name="likelihood")
        return {name: str(found[name]) for name in names}

    def _values(self) -> dict[str, Any]:
        """Values of the cells by modality, checked."""
        found = {name: self.adata_manager.get_from_registry(values_key(name)) for name in self._layers}
        for name, values in found.items():
            if not hasattr(values, "to_memory") and not hasattr(values, "compute"):
                check_values(values, self._likelihoods[name], name=repr(self._layers[name] or "X"))
        return found

    def _reader(self, adata: AnnData | MuData, layer: str | Mapping[str, str | None] | None) -> CellReader:
        layers = self._layers
        if isinstance(layer, Mapping):
            layers |= dict(layer)
        elif layer is not None:
            layers = dict.fromkeys(layers, layer)
        return CellReader(
            adata,
            features=self._features,
            layers=layers,
            likelihoods=self._likelihoods,
            covariates=self._covariates,
        )
