// A Databricks workspace, for who has none yet. Unity Catalog and its metastore are the account administrator's.

@description('Name of the workspace.')
@minLength(3)
@maxLength(64)
param name string

@description('Azure region.')
param location string

@description('Tags of every resource.')
param tags object

@description('Name of the resource group that Databricks makes and manages; it must not exist.')
param managedResourceGroupName string

@description('Resource id of the Log Analytics workspace.')
param workspaceId string

resource workspace 'Microsoft.Databricks/workspaces@2024-05-01' = {
  // checkov:skip=CKV2_AZURE_48:No data of this product lies in the workspace's own file system; the lake's keys are its owner's.
  // checkov:skip=CKV_AZURE_158:For a first try. Who needs private link brings a workspace of their own, which is the default.
  name: name
  location: location
  tags: tags
  sku: {
    // Unity Catalog, role-based access and secret scopes need it.
    name: 'premium'
  }
  properties: {
    managedResourceGroupId: subscriptionResourceId('Microsoft.Resources/resourceGroups', managedResourceGroupName)
    publicNetworkAccess: 'Enabled'
    requiredNsgRules: 'AllRules'
    parameters: {
      // Clusters have no public addresses.
      enableNoPublicIp: {
        value: true
      }
    }
  }
}

resource diagnostics 'Microsoft.Insights/diagnosticSettings@2021-05-01-preview' = {
  name: 'to-workspace'
  scope: workspace
  properties: {
    workspaceId: workspaceId
    logs: [
      {
        category: 'jobs'
        enabled: true
      }
      {
        category: 'secrets'
        enabled: true
      }
      {
        category: 'accounts'
        enabled: true
      }
    ]
  }
}

output host string = 'https://${workspace.properties.workspaceUrl}'
